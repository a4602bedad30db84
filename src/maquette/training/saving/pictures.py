"""Tensors as pictures to look at: channel order, ranges, colour maps, grids with captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import UserError
from maquette.io.lettering import with_text
from maquette.ops.image import resize

Picture = Float[Tensor, "_ _ 3"]
Range = tuple[float, float]

COLORMAPS: dict[str, list[list[float]]] = {
    "jet": [[0, 0, 0.5], [0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0], [0.5, 0, 0]],
    "magma": [[0, 0, 0.02], [0.32, 0.07, 0.48], [0.72, 0.22, 0.47], [0.99, 0.53, 0.38], [0.99, 0.99, 0.75]],
    "spectral": [[0.62, 0, 0.26], [0.96, 0.43, 0.26], [1, 1, 0.75], [0.4, 0.76, 0.65], [0.37, 0.31, 0.64]],
}
"""Colours at equal distances, interpolated linearly."""


def rgb_picture(image: Any, data_format: str = "HWC", data_range: Range = (0.0, 1.0)) -> Picture:
    """Colours in [0, 1]; more than three channels become tiles of three, side by side."""
    return torch.cat(_tiles(_rescaled(channels_last(image, data_format), data_range)), dim=1)


def grayscale_picture(image: Any, data_range: Range | None = None, cmap: str | None = None) -> Picture:
    """One channel in gray or a colour map; without a range, from its smallest to its largest value."""
    values = _tensor(image).squeeze()
    if values.ndim != 2 or not values.numel():
        shape = tuple(np.shape(image))
        raise UserError(f"A grayscale picture is (H, W) or has one channel, not the shape {shape}.")
    values = torch.nan_to_num(values)
    low, high = data_range if data_range is not None else (float(values.min()), float(values.max()))
    values = _rescaled(values, (low, high if high > low else low + 1.0))
    return values[..., None].expand(-1, -1, 3) if cmap is None else colored(values, cmap)


def uv_picture(
    image: Any, data_format: str = "HWC", data_range: Range = (0.0, 1.0), cmap: str = "checkerboard"
) -> Picture:
    """Texture coordinates as a checkerboard of 64 cells a side, or as red and green."""
    uv = _rescaled(channels_last(image, data_format), data_range)
    if uv.shape[-1] != 2:
        raise UserError(f"Texture coordinates have two channels, not {uv.shape[-1]}.")
    if cmap == "checkerboard":
        cells = (uv * 64).long().clamp(max=63)
        return ((cells.sum(dim=-1) % 2 == 0).float() * 0.5 + 0.25)[..., None].expand(-1, -1, 3)
    if cmap == "color":
        return F.pad(uv, (0, 1))
    raise UserError(f"Texture coordinates are shown as checkerboard or color, not {cmap}.")


def colored(values: Float[Tensor, "H W"], cmap: str) -> Picture:
    """Values in [0, 1] through a colour map."""
    if cmap not in COLORMAPS:
        raise UserError(f"There is no colour map {cmap!r}.", hint=f"one of: {', '.join(COLORMAPS)}")
    stops = torch.tensor(COLORMAPS[cmap])
    position = values.clamp(0.0, 1.0) * (len(stops) - 1)
    below = position.floor().long().clamp(max=len(stops) - 2)
    return torch.lerp(stops[below], stops[below + 1], (position - below)[..., None])


def grid_picture(
    rows: Sequence[Sequence[Picture]], align: Any = "max", texts: Sequence[Any] | None = None
) -> Picture:
    """Pictures in rows; every cell is stretched to the size that ``align`` names, short rows end in black.

    Args:
        rows: the pictures.
        align: ``max``, ``min``, a number for both sides, or (height, width).
        texts: captions: one for each row, or one for each cell, row by row.

    Raises:
        UserError: no picture, another ``align``, or more captions than cells.
    """
    everything = [cell for row in rows for cell in row]
    if not everything:
        raise UserError("A grid needs at least one picture.")
    height, width = _cell_size(everything, align)
    captions = _captions(rows, texts or ())
    columns = max(len(row) for row in rows)
    lines = []
    for row in rows:
        cells = [_cell(cell, height, width, next(captions, "")) for cell in row]
        cells += [torch.zeros(height, width, 3)] * (columns - len(cells))
        lines.append(torch.cat(cells, dim=1))
    return torch.cat(lines, dim=0)


def cubemap_picture(images: Any, data_range: Range = (0.0, 1.0)) -> Picture:
    """Six faces (+x, -x, +y, -y, +z, -z) of (6, S, S, C) as an unfolded cross of three by four.

    More than three channels become a cross for each three, side by side.

    Raises:
        UserError: another shape.
    """
    values = _tensor(images)
    if values.ndim != 4 or len(values) != 6 or values.shape[1] != values.shape[2] or not values.numel():
        raise UserError(f"A cube map is six square faces (6, S, S, C), not {tuple(values.shape)}.")
    return torch.cat([_cross(tile) for tile in _tiles(_rescaled(values, data_range))], dim=1)


def channels_last(image: Any, data_format: str) -> Float[Tensor, "H W C"]:
    """A picture with its channels last, floats on the CPU.

    Raises:
        UserError: another order, or no picture's shape.
    """
    if data_format not in ("HWC", "CHW"):
        raise UserError(f"A picture's data_format is HWC or CHW, not {data_format}.")
    values = _tensor(image)
    if values.ndim != 3 or not values.numel():
        raise UserError(f"A picture has a height, a width and channels, not the shape {tuple(values.shape)}.")
    return values.movedim(0, -1) if data_format == "CHW" else values


def _tiles(values: Float[Tensor, "*N C"]) -> Sequence[Float[Tensor, "*N 3"]]:
    """The channels three by three, the last ones filled up with black."""
    return F.pad(values, (0, -values.shape[-1] % 3)).split(3, dim=-1)


def _cross(faces: Float[Tensor, "6 S S 3"]) -> Picture:
    right, left, up, down, front, back = faces
    empty = torch.zeros_like(front)
    rows = [[empty, up, empty, empty], [left, front, right, back], [empty, down, empty, empty]]
    return torch.cat([torch.cat(row, dim=1) for row in rows], dim=0)


def _captions(rows: Sequence[Sequence[Picture]], texts: Sequence[Any]) -> Iterator[str]:
    """One caption for each cell; those of rows stand in their first cells."""
    count = sum(len(row) for row in rows)
    if len(texts) > count:
        raise UserError(f"{len(texts)} captions were given for {count} pictures.")
    if len(texts) == len(rows):
        return (
            str(text) if i == 0 else ""
            for row, text in zip(rows, texts, strict=True)
            for i in range(len(row))
        )
    return (str(text) for text in texts)


def _tensor(image: Any) -> Tensor:
    values = image if isinstance(image, Tensor) else torch.from_numpy(np.asarray(image))
    return values.detach().cpu().float()


def _rescaled(values: Tensor, data_range: Range) -> Tensor:
    low, high = data_range
    if not low < high:
        raise UserError(f"A range of values is (lowest, highest), not ({low}, {high}).")
    return ((values - low) / (high - low)).clamp(0.0, 1.0)


def _cell_size(cells: Sequence[Picture], align: Any) -> tuple[int, int]:
    if isinstance(align, int) and align > 0:
        return align, align
    if not isinstance(align, str | int) and len(align) == 2 and min(int(one) for one in align) > 0:
        return int(align[0]), int(align[1])
    if align not in ("max", "min"):
        raise UserError(f"A grid is aligned to max, min, a number or (height, width), not {align!r}.")
    chosen = max if align == "max" else min
    return chosen(cell.shape[0] for cell in cells), chosen(cell.shape[1] for cell in cells)


def _cell(picture: Picture, height: int, width: int, text: str) -> Picture:
    if picture.shape[:2] != (height, width):
        picture = resize(picture, height, width).clamp(0.0, 1.0)
    return with_text(picture, text) if text else picture

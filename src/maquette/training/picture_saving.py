"""The picture half of what a system can save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maquette.core.errors import UserError
from maquette.io.images import write_image
from maquette.training.loggers.media import loggers_of, logging_of, show_picture
from maquette.training.pictures import (
    Picture,
    Range,
    cubemap_picture,
    grayscale_picture,
    grid_picture,
    rgb_picture,
    uv_picture,
)

KINDS = {"rgb": rgb_picture, "uv": uv_picture, "grayscale": grayscale_picture}
"""How each type of cell of a grid becomes a picture."""


class PictureSaver:
    """Pictures as files, and in the logs when they are given a ``name``.

    The format is that of the file name's suffix (``.png``, ``.jpg``).
    """

    def get_save_path(self, filename: str | Path) -> Path:
        """The path of a file below the save folder."""
        raise NotImplementedError

    def save_rgb_image(
        self,
        filename: str | Path,
        img: Any,
        data_format: str = "HWC",
        data_range: Range = (0.0, 1.0),
        name: str | None = None,
        step: int | None = None,
    ) -> Path:
        """Colours; more than three channels are written as tiles of three, side by side."""
        return self._save(filename, rgb_picture(img, data_format, data_range), name, step)

    def save_uv_image(
        self,
        filename: str | Path,
        img: Any,
        data_format: str = "HWC",
        data_range: Range = (0.0, 1.0),
        cmap: str = "checkerboard",
    ) -> Path:
        """Texture coordinates as a checkerboard or as colours (``cmap="color"``)."""
        return self._save(filename, uv_picture(img, data_format, data_range, cmap))

    def save_grayscale_image(
        self,
        filename: str | Path,
        img: Any,
        data_range: Range | None = None,
        cmap: str | None = None,
        name: str | None = None,
        step: int | None = None,
    ) -> Path:
        """One channel, in gray or a colour map (jet, magma, spectral); without a range it is stretched."""
        return self._save(filename, grayscale_picture(img, data_range, cmap), name, step)

    def save_image_grid(
        self,
        filename: str | Path,
        imgs: Sequence[Any],
        align: Any = "max",
        name: str | None = None,
        step: int | None = None,
        texts: Sequence[str] | None = None,
    ) -> Path:
        """Rows of cells ``{"type": "rgb" | "uv" | "grayscale", "img": ..., "kwargs": {...}}``.

        Args:
            filename: the file.
            imgs: one row of cells, or a list of rows.
            align: size of a cell: ``max``, ``min``, a number, or (height, width).
            name: title in the logs.
            step: step in the logs.
            texts: captions of the cells.
        """
        rows = [imgs] if imgs and isinstance(imgs[0], Mapping) else imgs
        pictures = [[_cell(cell) for cell in row] for row in rows]
        return self._save(filename, grid_picture(pictures, align, texts), name, step)

    def save_image(self, filename: str | Path, img: Any) -> Path:
        """A picture as it is: uint8, or uint16 with one channel."""
        stored = img.detach().cpu().numpy() if isinstance(img, Tensor) else img
        if str(stored.dtype) not in ("uint8", "uint16"):
            raise UserError(
                f"save_image takes uint8 or uint16, not {stored.dtype}.", hint="save_rgb_image takes floats"
            )
        return write_image(self.get_save_path(filename), stored)

    def save_cubemap(self, filename: str | Path, img: Any, data_range: Range = (0.0, 1.0)) -> Path:
        """Six square faces (6, S, S, C) as an unfolded cross."""
        faces = torch.stack([rgb_picture(face, "HWC", data_range) for face in img])
        return self._save(filename, cubemap_picture(faces))

    def log_picture(self, name: str, picture: Picture, step: int | None) -> None:
        """Show a picture in the logs that can; a system with a Trainer has such logs."""
        if logging_of(self).pictures:
            show_picture(loggers_of(self), name, picture, step)

    def _save(
        self, filename: str | Path, picture: Picture, name: str | None = None, step: int | None = None
    ) -> Path:
        if name is not None:
            self.log_picture(name, picture, step)
        return write_image(self.get_save_path(filename), picture)


def _cell(cell: Mapping[str, Any]) -> Picture:
    kind = cell.get("type")
    if kind not in KINDS:
        raise UserError(f"A cell of a grid is {', '.join(KINDS)}, not {kind}.")
    return KINDS[kind](cell["img"], **(cell.get("kwargs") or {}))

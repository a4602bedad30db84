"""The picture half of what a system can save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from maquette.core.errors import UserError
from maquette.core.processes import is_leader
from maquette.io.images import write_image
from maquette.training.loggers.media import loggers_of, logging_of, show_picture
from maquette.training.saving.pictures import (
    Picture,
    Range,
    cubemap_picture,
    grayscale_picture,
    grid_picture,
    rgb_picture,
    uv_picture,
)

RGB_KWARGS: dict[str, Any] = {"data_format": "HWC", "data_range": (0.0, 1.0)}
UV_KWARGS: dict[str, Any] = {"data_format": "HWC", "data_range": (0.0, 1.0), "cmap": "checkerboard"}
GRAYSCALE_KWARGS: dict[str, Any] = {"data_range": None, "cmap": "jet"}
GRID_KWARGS: dict[str, Any] = {"align": "max"}

KINDS = {"rgb": rgb_picture, "uv": uv_picture, "grayscale": grayscale_picture}
"""How each type of cell of a grid becomes a picture."""

DEFAULTS = {"rgb": RGB_KWARGS, "uv": UV_KWARGS, "grayscale": GRAYSCALE_KWARGS}
"""What a cell of each type need not say."""


class PictureSaver:
    """Pictures as files, and in the logs when they are given a ``name``.

    The format is that of the file name's suffix (``.png``, ``.jpg``). Of several processes the first one
    writes; the others get the path that it writes to.
    """

    DEFAULT_RGB_KWARGS = RGB_KWARGS
    DEFAULT_UV_KWARGS = UV_KWARGS
    DEFAULT_GRAYSCALE_KWARGS = GRAYSCALE_KWARGS
    DEFAULT_GRID_KWARGS = GRID_KWARGS

    _has_own_views = False

    def writes(self) -> bool:
        """Whether this process writes: the first one of several. Views of an evaluation are shared out among
        them, and each is written by the process that has it.
        """
        return self._has_own_views or is_leader()

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
        cmap: str | None = "jet",
        name: str | None = None,
        step: int | None = None,
    ) -> Path:
        """One channel, in gray (``cmap=None``) or in the colours of jet, magma or spectral; without a range
        it is stretched.
        """
        return self._save(filename, grayscale_picture(img, data_range, cmap), name, step)

    def save_image_grid(
        self,
        filename: str | Path,
        imgs: Sequence[Any],
        align: Any = "max",
        name: str | None = None,
        step: int | None = None,
        texts: Sequence[Any] | None = None,
    ) -> Path:
        """Rows of cells ``{"type": "rgb" | "uv" | "grayscale", "img": ..., "kwargs": {...}}``.

        Args:
            filename: the file.
            imgs: one row of cells, or a list of rows.
            align: size of a cell: ``max``, ``min``, a number, or (height, width).
            name: title in the logs.
            step: step in the logs.
            texts: captions: one for each row, or one for each cell.

        Raises:
            UserError: no cell, a cell that is none of these, or another ``align``.
        """
        rows = [imgs] if imgs and isinstance(imgs[0], Mapping) else imgs
        pictures = [[_cell(cell) for cell in row] for row in rows]
        return self._save(filename, grid_picture(pictures, align, texts), name, step)

    def save_image(self, filename: str | Path, img: Any) -> Path:
        """A picture as it is: uint8, or uint16 with one channel."""
        stored = img.detach().cpu().numpy() if isinstance(img, Tensor) else np.asarray(img)
        if str(stored.dtype) not in ("uint8", "uint16"):
            raise UserError(
                f"save_image takes uint8 or uint16, not {stored.dtype}.", hint="save_rgb_image takes floats"
            )
        return self._write(filename, stored)

    def save_cubemap(self, filename: str | Path, img: Any, data_range: Range = (0.0, 1.0)) -> Path:
        """Six square faces (6, S, S, C) as an unfolded cross."""
        return self._save(filename, cubemap_picture(img, data_range))

    def log_picture(self, name: str, picture: Picture, step: int | None) -> None:
        """Show a picture in the logs that can; a system with a Trainer has such logs."""
        if logging_of(self).pictures:
            show_picture(loggers_of(self), name, picture, step)

    def _save(
        self, filename: str | Path, picture: Picture, name: str | None = None, step: int | None = None
    ) -> Path:
        if name is not None:
            self.log_picture(name, picture, step)
        return self._write(filename, picture)

    def _write(self, filename: str | Path, picture: Any) -> Path:
        path = self.get_save_path(filename)
        return write_image(path, picture) if self.writes() else path


def _cell(cell: Mapping[str, Any]) -> Picture:
    kind = cell.get("type")
    if kind not in KINDS:
        raise UserError(f"A cell of a grid is {', '.join(KINDS)}, not {kind}.")
    if "img" not in cell:
        raise UserError(f"A cell of a grid has its picture under img; this one has: {', '.join(cell)}.")
    options = DEFAULTS[kind] | dict(cell.get("kwargs") or {})
    unknown = options.keys() - DEFAULTS[kind]
    if unknown:
        known = ", ".join(DEFAULTS[kind])
        raise UserError(f"A cell of the type {kind} takes {known}, not {', '.join(sorted(unknown))}.")
    return KINDS[kind](cell["img"], **options)

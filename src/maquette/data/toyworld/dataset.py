"""Rendered toyworld as tensors: pictures, and the labels captions are made of; cached in one file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from maquette.core.paths import atomic_path
from maquette.data.toyworld.captions import azimuth_index, caption, elevation_index
from maquette.data.toyworld.kinds import KINDS
from maquette.data.toyworld.palette import PALETTE
from maquette.data.toyworld.render import render, sample_views

KIND_NAMES = tuple(KINDS)
COLOR_NAMES = tuple(PALETTE)
TOYS = tuple(product(range(len(KIND_NAMES)), range(len(COLOR_NAMES))))


@dataclass(frozen=True)
class ToyPictures:
    """N labelled pictures."""

    images: UInt8[Tensor, "N 3 H W"]
    kind: Int[Tensor, " N"]
    """Index into ``KIND_NAMES``."""
    color: Int[Tensor, " N"]
    """Index into ``COLOR_NAMES``."""
    azimuth: Float[Tensor, " N"]
    """Degrees."""
    elevation: Float[Tensor, " N"]
    """Degrees."""

    def __len__(self) -> int:
        return len(self.images)

    def caption(self, index: int) -> str:
        """Caption of one picture."""
        kind, color = KIND_NAMES[int(self.kind[index])], COLOR_NAMES[int(self.color[index])]
        return caption(kind, color, float(self.azimuth[index]), float(self.elevation[index]))

    def captions(self) -> list[str]:
        """Captions of all pictures."""
        return [self.caption(index) for index in range(len(self))]

    def sectors(self) -> Int[Tensor, " N"]:
        """Azimuth sector of every picture."""
        return torch.tensor([azimuth_index(angle) for angle in self.azimuth.tolist()])

    def bands(self) -> Int[Tensor, " N"]:
        """Elevation band of every picture."""
        return torch.tensor([elevation_index(angle) for angle in self.elevation.tolist()])


def render_pictures(per_toy: int, seed: int, size: int = 64) -> ToyPictures:
    """``per_toy`` random views of every kind in every colour; the same seed gives the same bytes."""
    parts = list(_render_toys(per_toy, seed, size))
    return ToyPictures(*(torch.cat(column) for column in zip(*parts, strict=True)))


def cached_pictures(folder: Path, per_toy: int, seed: int, size: int = 64) -> ToyPictures:
    """``render_pictures``, kept in a file of ``folder`` that is named after the arguments."""
    path = folder / f"toyworld-{size}px-{per_toy}x{len(TOYS)}-seed{seed}.pt"
    if not path.exists():
        pictures = asdict(render_pictures(per_toy, seed, size))
        with atomic_path(path) as temporary:  # several processes may make it at the same time
            torch.save(pictures, temporary)
    return ToyPictures(**torch.load(path, weights_only=True))


def _render_toys(per_toy: int, seed: int, size: int) -> Iterator[tuple[Tensor, ...]]:
    for kind, color in TOYS:
        views = sample_views(per_toy, np.random.default_rng((seed, kind, color)))
        images = torch.cat(
            [
                render(KIND_NAMES[kind], COLOR_NAMES[color], views[start : start + 32], size)
                for start in range(0, per_toy, 32)
            ]
        )
        yield (
            images,
            torch.full((per_toy,), kind),
            torch.full((per_toy,), color),
            torch.from_numpy(views.azimuth_deg),
            torch.from_numpy(views.elevation_deg),
        )

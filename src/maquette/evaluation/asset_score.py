"""How well an asset shows the toy that was asked for: a classifier looks at eight views of its mesh."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.view_words import AZIMUTH_WORDS
from maquette.data.toyworld.kinds import FRONTED, KINDS
from maquette.data.toyworld.mesh import colored_toy
from maquette.data.toyworld.palette import PALETTE
from maquette.data.toyworld.render import DISTANCE, FOVY_DEG
from maquette.evaluation.classifier import ToyClassifier, classify
from maquette.kernels.render_mesh import render_mesh
from maquette.ops.camera_batch import CameraBatch
from maquette.ops.mesh import Mesh
from maquette.ops.orbit import orbit_cameras

N_VIEWS = len(AZIMUTH_WORDS)
ELEVATION_DEG = 22.0
VIEW_SIZE = 64
BACKGROUND = (0.8, 0.8, 0.8)


@dataclass(frozen=True)
class AssetScore:
    """What a classifier that never guided anything sees in eight views of an asset."""

    kind: str
    """The kind asked for."""
    color: str
    """The color asked for."""
    kind_seen: str
    """The kind with the largest mean probability over the views."""
    color_seen: str
    """The color with the largest mean probability over the views."""
    azimuth_hits: int | None
    """Views whose azimuth is seen within one sector of the camera's; None for a toy without a front."""
    sharpness: float
    """Gradient energy of the views over that of the true toy from the same cameras."""

    @property
    def right(self) -> bool:
        """Kind and color are both what was asked for."""
        return (self.kind, self.color) == (self.kind_seen, self.color_seen)


def score_asset(mesh: Mesh, kind: str, color: str, classifier: ToyClassifier) -> AssetScore:
    """Judge one asset (world frame, front +x) that was made from "a COLOR KIND"."""
    views = render_views(mesh)
    seen = classify(classifier, views)
    truth = render_views(colored_toy(kind, color))
    return AssetScore(
        kind=kind,
        color=color,
        kind_seen=list(KINDS)[int(seen.kind.mean(0).argmax())],
        color_seen=list(PALETTE)[int(seen.color.mean(0).argmax())],
        azimuth_hits=azimuth_hits(seen.azimuth) if kind in FRONTED else None,
        sharpness=float(gradient_energy(views) / gradient_energy(truth)),
    )


def render_views(mesh: Mesh, size: int = VIEW_SIZE) -> Float[Tensor, "8 3 H W"]:
    """Unlit pictures of a mesh from the centres of the eight azimuth sectors, front first."""
    return render_mesh(mesh, sector_cameras(size), shading="albedo", background=BACKGROUND)["rgb"].permute(
        0, 3, 1, 2
    )


def sector_cameras(size: int = VIEW_SIZE) -> CameraBatch:
    """Eight cameras where toyworld's cameras stand, one in the middle of each azimuth sector."""
    azimuth = torch.arange(N_VIEWS) * (360.0 / N_VIEWS)
    elevation = torch.full((N_VIEWS,), ELEVATION_DEG)
    distance = torch.full((N_VIEWS,), sum(DISTANCE) / 2)
    return orbit_cameras(elevation, azimuth, distance, torch.full((N_VIEWS,), FOVY_DEG), size, size)


def azimuth_hits(probability: Float[Tensor, "8 8"]) -> int:
    """Views whose likeliest sector is the camera's own or a neighbour of it; row k is seen from sector k."""
    distance = (probability.argmax(-1) - torch.arange(N_VIEWS)).abs()
    return int((torch.minimum(distance, N_VIEWS - distance) <= 1).sum())


def gradient_energy(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, ""]:
    """Mean squared difference of neighbouring pixels, horizontally and vertically."""
    return images.diff(dim=-1).square().mean() + images.diff(dim=-2).square().mean()

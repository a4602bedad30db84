"""The light that comes with maquette: a photographer's studio, computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.ops.environment import solid_angles, texel_directions, uv_to_direction

MEAN = 0.45
"""Radiance averaged over all directions; twice that lights a white surface to about its own colour."""
GROUND, HORIZON, ZENITH = (0.20, 0.19, 0.18), (0.42, 0.43, 0.45), (0.62, 0.66, 0.72)
EDGE = 0.06
"""Width of a lamp's soft border, as a tangent."""


@dataclass(frozen=True)
class SoftBox:
    """A rectangular lamp far away, facing the middle."""

    azimuth: float
    """Degrees; 0 is the front."""
    elevation: float
    """Degrees."""
    width: float
    """Tangent of half its width."""
    height: float
    """Tangent of half its height."""
    color: tuple[float, float, float]
    """Radiance before `MEAN` is set."""


SOFT_BOXES = (
    SoftBox(40.0, 45.0, 0.45, 0.35, (7.0, 6.7, 6.2)),
    SoftBox(-60.0, 20.0, 0.25, 0.55, (2.6, 2.8, 3.1)),
    SoftBox(165.0, 35.0, 0.60, 0.15, (5.0, 5.0, 5.2)),
)
"""Key from the front and above, fill from the other side, rim from behind."""


def studio(height: int = 128) -> Float[Tensor, "h w 3"]:
    """An equirectangular picture of linear radiance, `height` x 2 `height`: three soft boxes before a
    gradient.

    The layout of such pictures is that of `ops.environment`.
    """
    directions = texel_directions(height, 2 * height)
    light = _gradient(directions[..., 2])
    for box in SOFT_BOXES:
        light = light + _covered(box, directions) * torch.tensor(box.color)
    mean = (light * solid_angles(height, 2 * height)).sum() / (4.0 * math.pi * 3.0)
    return light * (MEAN / mean)


def _gradient(z: Float[Tensor, "h w"]) -> Float[Tensor, "h w 3"]:
    """Ground below, a horizon, and a lighter ceiling."""
    ground, horizon, zenith = (torch.tensor(color) for color in (GROUND, HORIZON, ZENITH))
    up = z.clamp(min=0.0)[..., None].sqrt()
    down = (-z).clamp(min=0.0)[..., None].sqrt()
    return horizon + up * (zenith - horizon) + down * (ground - horizon)


def _covered(box: SoftBox, directions: Float[Tensor, "h w 3"]) -> Float[Tensor, "h w 1"]:
    """Share of each direction that the lamp covers, 0 to 1."""
    place = torch.tensor([0.5 - box.azimuth / 360.0, 0.5 + box.elevation / 180.0])
    axis = uv_to_direction(place)
    right = torch.linalg.cross(axis, torch.tensor([0.0, 0.0, 1.0]))
    right = right / right.norm()
    up = torch.linalg.cross(right, axis)
    ahead = directions @ axis
    depth = ahead.clamp(min=1e-3)
    beside = (directions @ right).abs() / depth - box.width
    above = (directions @ up).abs() / depth - box.height
    inside = torch.sigmoid(-beside / EDGE * 4.0) * torch.sigmoid(-above / EDGE * 4.0)
    return torch.where(ahead > 0.0, inside, torch.zeros_like(inside))[..., None]

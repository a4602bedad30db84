"""Cameras that stand around an object and look at it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.ops.camera_batch import CameraBatch, make_camera_batch
from maquette.ops.cameras import look_at, orbit_to_position


def orbit_cameras(
    elevation: Float[Tensor, "B"],
    azimuth: Float[Tensor, "B"],
    distance: Float[Tensor, "B"],
    fovy_deg: Float[Tensor, "B"],
    height: int,
    width: int,
    **more: Any,
) -> CameraBatch:
    """Cameras that look at the origin, upright, each lit from where it stands; degrees and world units.

    Args:
        elevation: of the cameras.
        azimuth: 0 is the front.
        distance: from the origin.
        fovy_deg: vertical fields of view.
        height: rows of the pictures.
        width: columns of them.
        more: further arguments of `make_camera_batch`.
    """
    position = orbit_to_position(elevation, azimuth, distance)
    up = torch.tensor([0.0, 0.0, 1.0]).expand_as(position)
    return make_camera_batch(
        look_at(position, torch.zeros_like(position), up),
        torch.deg2rad(fovy_deg),
        height,
        width,
        light_positions=position,
        elevation=elevation,
        azimuth=azimuth,
        camera_distances=distance,
        **more,
    )

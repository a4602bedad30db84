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
    center: Float[Tensor, "3"] | None = None,
    light: Float[Tensor, "B 3"] | None = None,
    **more: Any,
) -> CameraBatch:
    """Cameras that stand around a point and look at it, upright; degrees and world units.

    Args:
        elevation: of the cameras.
        azimuth: 0 is the front.
        distance: from the point.
        fovy_deg: vertical fields of view.
        height: rows of the pictures.
        width: columns of them.
        center: the point; None for the origin.
        light: where the light of each is, from the point; None for the camera's own place.
        more: further arguments of `make_camera_batch`.
    """
    middle = torch.zeros(3) if center is None else center
    position = middle + orbit_to_position(elevation, azimuth, distance)
    up = torch.tensor([0.0, 0.0, 1.0]).expand_as(position)
    return make_camera_batch(
        look_at(position, middle.expand_as(position), up),
        torch.deg2rad(fovy_deg),
        height,
        width,
        light_positions=position if light is None else middle + light,
        elevation=elevation,
        azimuth=azimuth,
        camera_distances=distance,
        **more,
    )

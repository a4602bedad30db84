"""What `fit.py` fits to: a toy, the pictures of it, and the part of its surface that can be seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.random import StepRandom
from maquette.data.toyworld.mesh import colored_toy
from maquette.kernels.mesh_distance import MeshDistance
from maquette.kernels.render_mesh import render_mesh
from maquette.ops.camera_batch import CameraBatch, make_camera_batch
from maquette.ops.cameras import look_at, orbit_to_position
from maquette.ops.mesh import Mesh
from maquette.ops.point_cloud import sample_surface

SIZE = 128
TRAIN, HELD_OUT = 40, 10
DISTANCE, FOVY_DEG = 2.8, 40.0
ELEVATIONS = (-35.0, 80.0)
SUPERSAMPLE = 4
OUTSIDE = 2e-3
"""How far from the surface the space beside it is asked for, world units."""


@dataclass(frozen=True)
class Views:
    """Pictures with the cameras that took them."""

    cameras: CameraBatch
    rgb: Float[Tensor, "B H W 3"]
    """Before black."""
    opacity: Float[Tensor, "B H W 1"]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.rgb)

    def some(self, index: Sequence[int]) -> Views:
        """Some of the views."""
        rows = torch.as_tensor(index)
        tensors = {
            one.name: value[rows]
            for one in fields(self.cameras)
            if isinstance(value := getattr(self.cameras, one.name), Tensor)
        }
        return Views(replace(self.cameras, **tensors), self.rgb[rows], self.opacity[rows])

    def before(self, color: Sequence[float]) -> Float[Tensor, "B H W 3"]:
        """The pictures before one color."""
        return self.rgb + (1.0 - self.opacity) * self.rgb.new_tensor(color)


@dataclass(frozen=True)
class Scene:
    """A toy and its pictures."""

    mesh: Mesh
    train: Views
    held_out: Views

    @classmethod
    def of(cls, toy: str, color: str = "red") -> Scene:
        """A toy of toyworld, photographed."""
        mesh = colored_toy(toy, color)
        return cls(mesh, photographed(mesh, orbit(TRAIN, 1)), photographed(mesh, orbit(HELD_OUT, 2)))

    def larger_view(self, size: int) -> Views:
        """One view of another size, without a picture."""
        nothing = torch.zeros(1, size, size, 1)
        return Views(orbit(1, 3, size), nothing.expand(-1, -1, -1, 3), nothing)


def orbit(count: int, seed: int, size: int = SIZE) -> CameraBatch:
    """Cameras on a sphere: azimuths in even steps with jitter, elevations even in area."""
    draws = StepRandom(seed, 0, tuple(range(count)))
    azimuth = (torch.arange(count) + draws.uniform("azimuth")) * (360.0 / count)
    low, high = (math.sin(math.radians(degrees)) for degrees in ELEVATIONS)
    elevation = torch.rad2deg(torch.asin(draws.uniform("elevation", low=low, high=high)))
    distance = torch.full((count,), DISTANCE)
    position = orbit_to_position(elevation, azimuth, distance)
    up = torch.tensor([0.0, 0.0, 1.0]).expand_as(position)
    return make_camera_batch(
        look_at(position, torch.zeros_like(position), up),
        torch.full((count,), math.radians(FOVY_DEG)),
        size,
        size,
        light_positions=position,
        elevation=elevation,
        azimuth=azimuth,
        camera_distances=distance,
        index=torch.arange(count),
    )


def photographed(mesh: Mesh, cameras: CameraBatch) -> Views:
    """The toy's own colors from each camera."""
    shown = render_mesh(mesh, cameras, "albedo", (0.0, 0.0, 0.0), SUPERSAMPLE)
    return Views(cameras, shown["rgb"], shown["opacity"])


def true_surface_points(mesh: Mesh, count: int) -> Float[Tensor, "N 3"]:
    """Points on the surface of a toy that are not inside another of its parts."""
    cloud = sample_surface(mesh, count)
    assert cloud.normals is not None
    beside = cloud.points + OUTSIDE * cloud.normals
    return cloud.points[MeshDistance(mesh.vertices, mesh.faces).winding_number(beside) < 0.5]

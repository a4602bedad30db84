"""Pictures of toys: random cameras, light and background, ray cast and supersampled."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from maquette.data.toyworld.mesh import toy_mesh
from maquette.kernels.raycast import RayHits, RayMesh

FOVY_DEG = 40.0
ELEVATION_DEG = (-10.0, 80.0)
DISTANCE = (2.5, 3.1)
AMBIENT = (0.5, 0.9)
SUPERSAMPLE = 2


@dataclass(frozen=True)
class Views:
    """N views of a toy: camera on a sphere around the origin, light, background. Angles in degrees."""

    azimuth_deg: NDArray[np.float32]
    elevation_deg: NDArray[np.float32]
    distance: NDArray[np.float32]
    light: NDArray[np.float32]
    """(N, 3) unit vectors towards the light."""
    ambient: NDArray[np.float32]
    """(N,) share of light that comes from everywhere."""
    background: NDArray[np.float32]
    """(N, 3)."""
    fovy_deg: float = FOVY_DEG

    def __len__(self) -> int:
        return len(self.azimuth_deg)

    def __getitem__(self, rows: slice) -> Views:
        """Some of the views."""
        arrays = (
            self.azimuth_deg,
            self.elevation_deg,
            self.distance,
            self.light,
            self.ambient,
            self.background,
        )
        return Views(*(array[rows] for array in arrays), fovy_deg=self.fovy_deg)


def sample_views(n: int, rng: np.random.Generator) -> Views:
    """Random views: azimuth all around, elevation -10 to 80 degrees, light around the camera."""
    azimuth = rng.uniform(-180.0, 180.0, n)
    elevation = rng.uniform(*ELEVATION_DEG, n)
    light = _on_sphere(azimuth, elevation) + 0.5 * rng.standard_normal((n, 3))
    light[:, 2] += 0.3
    light /= np.linalg.norm(light, axis=-1, keepdims=True)
    arrays = (
        azimuth,
        elevation,
        rng.uniform(*DISTANCE, n),
        light,
        rng.uniform(*AMBIENT, n),
        _backgrounds(n, rng),
    )
    return Views(*(array.astype(np.float32) for array in arrays))


def orbit_views(azimuth_deg: list[float], elevation_deg: float = 20.0, distance: float = 2.8) -> Views:
    """Views at given azimuths under head light on white, for sheets and tests."""
    n = len(azimuth_deg)
    azimuth, elevation = np.array(azimuth_deg, np.float32), np.full(n, elevation_deg, np.float32)
    light = _on_sphere(azimuth, elevation) + np.array([0.0, 0.0, 0.4])
    light /= np.linalg.norm(light, axis=-1, keepdims=True)
    full = np.full(n, distance, np.float32)
    return Views(
        azimuth,
        elevation,
        full,
        light.astype(np.float32),
        np.full(n, 0.6, np.float32),
        np.ones((n, 3), np.float32),
    )


def render(kind: str, color: str, views: Views, size: int = 64) -> UInt8[Tensor, "N 3 size size"]:
    """Pictures of one toy, 2 x 2 supersampled."""
    fine = size * SUPERSAMPLE
    origins, directions = _camera_rays(views, fine)
    hits = _ray_mesh(kind).cast(origins.view(-1, 3), directions.view(-1, 3))
    rgb = _shade(hits, torch.from_numpy(toy_mesh(kind).face_colors(color)), views)
    rgb = rgb.view(len(views), size, SUPERSAMPLE, size, SUPERSAMPLE, 3).mean((2, 4))
    return rgb.mul_(255.0).round_().clamp_(0, 255).byte().permute(0, 3, 1, 2).contiguous()


@functools.cache
def _ray_mesh(kind: str) -> RayMesh:
    toy = toy_mesh(kind)
    return RayMesh(torch.from_numpy(toy.vertices), torch.from_numpy(toy.faces))


def _backgrounds(n: int, rng: np.random.Generator) -> NDArray[Any]:
    """Greys from dark to light, a tenth of them white, a sixth tinted."""
    grey = np.repeat(rng.uniform(0.3, 1.0, (n, 1)), 3, axis=1)
    tinted = np.clip(grey + rng.uniform(-0.25, 0.25, (n, 3)), 0.0, 1.0)
    dice = rng.uniform(size=(n, 1))
    return np.where(dice < 0.1, 1.0, np.where(dice < 0.27, tinted, grey))


def _on_sphere(azimuth_deg: NDArray[Any], elevation_deg: NDArray[Any]) -> NDArray[Any]:
    azimuth, elevation = np.radians(azimuth_deg), np.radians(elevation_deg)
    flat = np.cos(elevation)
    return np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], -1)


def _camera_rays(views: Views, size: int) -> tuple[Float[Tensor, "N P 3"], Float[Tensor, "N P 3"]]:
    """Pinhole rays through pixel centres, rows top to bottom (OpenGL camera: looks along its -z)."""
    backward = _on_sphere(views.azimuth_deg, views.elevation_deg)
    right = np.cross([0.0, 0.0, 1.0], backward)
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    axes = np.stack([right, np.cross(backward, right), backward], 1)
    slope = (np.arange(size) + 0.5) / size * 2.0 - 1.0
    slope = slope * math.tan(math.radians(views.fovy_deg) / 2)
    local = np.stack([*np.meshgrid(slope, -slope, indexing="xy"), -np.ones((size, size))], -1)
    local /= np.linalg.norm(local, axis=-1, keepdims=True)
    directions = torch.from_numpy((local.reshape(1, -1, 3) @ axes).astype(np.float32))
    origins = torch.from_numpy((views.distance[:, None] * backward).astype(np.float32))
    return origins[:, None].expand_as(directions).contiguous(), directions


def _shade(hits: RayHits, colors: Float[Tensor, "F 3"], views: Views) -> Float[Tensor, "N P 3"]:
    """Lambert with ambient light in front of a plain background."""
    n = len(views)
    light, ambient = torch.from_numpy(views.light), torch.from_numpy(views.ambient)[:, None, None]
    lambert = torch.bmm(hits.normal.view(n, -1, 3), light[:, :, None]).clamp_min_(0.0)
    albedo = colors[hits.face.clamp_min(0).long()].view(n, -1, 3)
    lit = albedo * (ambient + (1.0 - ambient) * lambert)
    background = torch.from_numpy(views.background)[:, None].expand_as(lit)
    return torch.where(hits.mask.view(n, -1, 1), lit, background)

"""Pictures of whatever a file holds, from cameras around its middle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from maquette.core.errors import RunFailed
from maquette.io.assets import Asset
from maquette.kernels.gaussians import sh_colors, splat
from maquette.kernels.render_mesh import render_mesh
from maquette.ops.camera_batch import CameraBatch
from maquette.ops.cameras import orbit_to_position
from maquette.ops.gaussians import Gaussians, colors_to_sh, spacing
from maquette.ops.mesh import Mesh, bounding_box
from maquette.ops.orbit import orbit_cameras
from maquette.ops.point_cloud import PointCloud
from maquette.ops.transforms import gl_to_cv, intrinsics, invert_rigid

MARGIN = 1.05
POINT_OPACITY = 0.98
UNPAINTED = 0.75
SPREAD = 2.0
"""Standard deviations of a Gaussian that belong to its asset's box."""


@dataclass(frozen=True, kw_only=True)
class View:
    """Where the camera stands; degrees."""

    width: int = 512
    height: int = 512
    elevation: float = 15.0
    distance: float | None = None
    """From the middle of the asset; None keeps all of it in the picture from every side."""
    fovy: float = 35.0
    shading: str = "lambert"
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)


def pictures(asset: Asset, azimuth: torch.Tensor, view: View) -> dict[str, torch.Tensor]:
    """``rgb`` (B, H, W, 3), ``opacity``, ``depth`` (B, H, W, 1) and ``normal`` (B, H, W, 3) for B azimuths.

    Depth is the distance from the camera along the ray, 0 where nothing is; normals are those of the world.
    Splats and points are shown as they are, without light.
    """
    batch = _cameras(asset, azimuth, view)
    if isinstance(asset, Mesh):
        shading: Any = view.shading
        return render_mesh(asset, batch, shading, view.background)
    cloud = asset if isinstance(asset, Gaussians) else _as_gaussians(asset)
    return _splatted(cloud, batch, view)


def _splatted(cloud: Gaussians, batch: CameraBatch, view: View) -> dict[str, torch.Tensor]:
    colors = sh_colors(cloud.sh, cloud.means, batch.camera_positions, cloud.sh_degree)
    found = splat(
        cloud.means,
        cloud.rotations,
        cloud.scales,
        cloud.opacities,
        colors,
        invert_rigid(gl_to_cv(batch.c2w)),
        intrinsics(batch.proj_mtx, batch.height, batch.width),
        batch.height,
        batch.width,
        background=torch.tensor(view.background),
        normals=True,
    )
    seen = found.opacity > 0.5
    ahead = -(batch.rays_d * batch.c2w[:, None, None, :3, 2]).sum(dim=-1, keepdim=True)
    depth = found.depth / found.opacity.clamp(min=1e-6) / ahead
    return {
        "rgb": found.color,
        "opacity": found.opacity,
        "depth": torch.where(seen, depth, 0.0),
        "normal": torch.nn.functional.normalize(found.normal, dim=-1) * seen,
    }


def _as_gaussians(cloud: PointCloud) -> Gaussians:
    """Points as small balls that nearly touch their neighbours."""
    n = cloud.n_points
    size = spacing(cloud.points) if n > 1 else torch.full((1,), 0.01)
    colors = torch.full((n, 3), UNPAINTED) if cloud.colors is None else cloud.colors
    return Gaussians(
        means=cloud.points,
        rotations=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(n, 4),
        scales=(0.7 * size).clamp(min=1e-6)[:, None].expand(n, 3),
        opacities=torch.full((n,), POINT_OPACITY),
        sh=colors_to_sh(colors)[:, None],
    )


def _box(asset: Asset) -> torch.Tensor:
    if isinstance(asset, Mesh):
        return bounding_box(asset)
    if isinstance(asset, PointCloud):
        return torch.stack([asset.points.amin(dim=0), asset.points.amax(dim=0)])
    seen = asset[asset.opacities > 0.05] if bool((asset.opacities > 0.05).any()) else asset
    reach = SPREAD * seen.scales.amax(dim=1, keepdim=True)
    return torch.stack([(seen.means - reach).amin(dim=0), (seen.means + reach).amax(dim=0)])


def _cameras(asset: Asset, azimuth: torch.Tensor, view: View) -> CameraBatch:
    low, high = _box(asset).cpu()
    radius = float((high - low).norm()) / 2
    if not math.isfinite(radius):
        raise RunFailed("The asset has no size that could be shown.")
    half = math.radians(view.fovy) / 2
    narrow = math.atan(math.tan(half) * min(1.0, view.width / view.height))
    distance = view.distance or max(1e-3, MARGIN * radius / math.sin(narrow))
    distances = torch.full_like(azimuth, distance)
    elevation = torch.full_like(azimuth, view.elevation)
    fovy = torch.full_like(azimuth, view.fovy)
    light = orbit_to_position(elevation + 30.0, azimuth - 35.0, distances)
    return orbit_cameras(
        elevation, azimuth, distances, fovy, view.height, view.width, (low + high) / 2, light
    )

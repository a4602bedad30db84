"""Where a cloud of Gaussians begins: a ball, points, a mesh, splats, or a checkpoint."""

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError, UserError
from maquette.core.loading import load_module_weights
from maquette.core.random import StepRandom
from maquette.io.mesh import read_mesh
from maquette.io.ply import ply_kind, read_points
from maquette.io.splats import read_splats
from maquette.kernels.nearest import nearest
from maquette.models.geometry.base import BaseGeometry
from maquette.models.geometry.gaussian_rows import PARAMETERS, activated
from maquette.ops.gaussians import Gaussians, colors_to_sh, spacing
from maquette.ops.mesh import Mesh
from maquette.ops.point_cloud import PointCloud, sample_surface

GREY_SPREAD = 1 / 255
"""Coefficients of the initial ball's colours are uniform in [0, this)."""
MOST_EXACT = 2**14
"""Points up to which all pairs are looked at."""
QUARTERS = 4
KEY = "system.geometry.geometry_convert_from"
ELSEWHERE = ("shap-e:", "lrm:")
"""Beginnings that other programs make."""


def ball(
    n: int, radius: float, opacity: float, degree: int, generator: torch.Generator | None = None
) -> Gaussians:
    """`n` nearly grey Gaussians spread evenly through a ball around the origin."""
    draws = torch.rand(n, 6, generator=generator)
    height, angle = 2.0 * draws[:, 0] - 1.0, 2.0 * math.pi * draws[:, 1]
    across = (1.0 - height.square()).clamp(min=0.0).sqrt()
    unit = torch.stack([across * angle.cos(), across * angle.sin(), height], dim=-1)
    points = radius * draws[:, 2:3].pow(1.0 / 3.0) * unit
    sh = with_degree(draws[:, None, 3:] * GREY_SPREAD, degree)
    return around_points(points, opacity).replace(sh=sh)


def around_points(points: Float[Tensor, "N 3"], opacity: float) -> Gaussians:
    """A grey Gaussian at each point, round, as wide as its distance to its nearest neighbours."""
    n = len(points)
    return Gaussians(
        means=points,
        rotations=points.new_tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1),
        scales=widths(points)[:, None].repeat(1, 3),
        opacities=points.new_full((n,), opacity),
        sh=points.new_zeros(n, 1, 3),
    )


def widths(points: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
    """Distance from each point to its neighbours: `spacing`, or for many points an estimate of it.

    The estimate is the root of the mean squared distance to the nearest point in each of the three quarters
    of the cloud that the point itself is not in.
    """
    if len(points) <= MOST_EXACT:
        return spacing(points)
    quarter = torch.arange(len(points), device=points.device) % QUARTERS
    squared = torch.zeros_like(points[:, 0])
    for one in range(QUARTERS):
        other = (quarter != one).nonzero()[:, 0]
        squared[other] += nearest(points[other], points[quarter == one])[0] / (QUARTERS - 1)
    return squared.clamp(min=1e-7).sqrt()


def from_cloud(cloud: PointCloud, opacity: float) -> Gaussians:
    """A Gaussian at each point, of its colour where the cloud has any."""
    gaussians = around_points(cloud.points, opacity)
    if cloud.colors is None:
        return gaussians
    return gaussians.replace(sh=colors_to_sh(cloud.colors)[:, None])


def from_file(path: str, cfg: Any) -> Gaussians:
    """The Gaussians that a file stands for: splats and points as they are, meshes by points on their surface.

    Args:
        path: .ply (splats, points or a mesh), a mesh of another format, or the .ckpt of a run with Gaussians.
        cfg: of the geometry: `init_num_pts`, `opacity_init`, `sh_degree`, `load_ply_only_vertex`, `max_num`.

    Raises:
        ConfigError: nothing that Gaussians can begin with.
        MissingFileError, UserError: the file is not there, or damaged.
    """
    return fitted(_read(path, cfg), cfg)


def from_geometry(other: BaseGeometry, cfg: Any, material: Any = None) -> Gaussians:
    """Gaussians on the surface of another geometry, of its colours.

    Colours are those of the mesh where it has any; else the material's, or without one the sigmoid of the
    first three features, which is what the usual materials show.
    """
    mesh = other.isosurface()
    cloud = sample_surface(mesh, cfg.init_num_pts)
    if cloud.colors is None:
        cloud = cloud.replace(colors=_colors(other, material, cloud.points))
    return from_cloud(cloud, cfg.opacity_init)


def with_degree(sh: Float[Tensor, "N K 3"], degree: int) -> Float[Tensor, "N L 3"]:
    """Coefficients of a degree: higher ones are cut off, missing ones zero."""
    wanted = (degree + 1) ** 2
    missing = sh.new_zeros(len(sh), max(wanted - sh.shape[1], 0), 3)
    return torch.cat([sh[:, :wanted], missing], dim=1)


def fitted(gaussians: Gaussians, cfg: Any) -> Gaussians:
    """With colours of degree `sh_degree`, and at most `max_num`, chosen evenly and always the same."""
    gaussians = gaussians.replace(sh=with_degree(gaussians.sh, cfg.sh_degree))
    if gaussians.n <= cfg.max_num:
        return gaussians
    order = StepRandom(0, 0, (0,)).uniform("gaussians/thin", gaussians.n)[0].argsort()
    return gaussians[order[: cfg.max_num].sort().values.to(gaussians.means.device)]


def _read(path: str, cfg: Any) -> Gaussians:
    if path.startswith(ELSEWHERE):
        raise ConfigError(KEY, path, "a file", "make a mesh or a point cloud with that model first")
    suffix = Path(path).suffix.lower()
    if suffix == ".ckpt":
        return _from_checkpoint(path)
    if suffix != ".ply":
        return _from_mesh(read_mesh(path), cfg)
    kind = ply_kind(path)
    if kind == "splats":
        splats = read_splats(path)
        vertices = PointCloud(splats.means, splats.colors)
        return from_cloud(vertices, cfg.opacity_init) if cfg.load_ply_only_vertex else splats
    if kind == "mesh" and not cfg.load_ply_only_vertex:
        return _from_mesh(read_mesh(path), cfg)
    return from_cloud(read_points(path), cfg.opacity_init)


def _from_mesh(mesh: Mesh, cfg: Any) -> Gaussians:
    return from_cloud(sample_surface(mesh, cfg.init_num_pts), cfg.opacity_init)


def _from_checkpoint(path: str) -> Gaussians:
    state = load_module_weights(path, "geometry").state_dict
    if missing := [name for name in PARAMETERS if name not in state]:
        raise UserError(f"The geometry of {path} is no cloud of Gaussians: it lacks {', '.join(missing)}.")
    return activated(state)


def _colors(other: BaseGeometry, material: Any, points: Tensor) -> Tensor | None:
    features = other.export(points).get("features")
    if features is None or features.shape[-1] < 3:
        return None
    if material is not None:
        albedo = material.export(features).get("albedo")
        return None if albedo is None else albedo[..., :3].clamp(0.0, 1.0)
    return torch.sigmoid(features[..., :3])

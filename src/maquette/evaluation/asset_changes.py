"""One kind of asset as another, and a mesh as a simpler one that looks the same."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import UserError
from maquette.io.assets import Asset
from maquette.io.remesh import decimate
from maquette.io.textures import BASE_COLOR, METALLIC_ROUGHNESS
from maquette.io.uv import unwrap
from maquette.kernels.mesh_distance import MeshDistance
from maquette.models.exporters.baking import texels
from maquette.models.geometry.gaussian_splatting import GaussianSplatting
from maquette.ops.gaussians import Gaussians
from maquette.ops.mesh import Mesh
from maquette.ops.point_cloud import PointCloud, sample_surface, surface_colors, texture_values

REACH = 3.0
"""Standard deviations of a Gaussian that the box of its isosurface holds."""
TRANSFERRED = (BASE_COLOR, METALLIC_ROUGHNESS)
"""Maps that belong to places on a surface; tangent-space normals belong to the faces that are gone."""


def simplified(mesh: Mesh, n_faces: int, texture_size: int | None) -> Mesh:
    """About `n_faces` faces, with the colours and maps of the nearest points of the mesh as it was.

    A textured mesh is unwrapped again; its normal map goes, see `TRANSFERRED`.

    Args:
        mesh: in the world frame.
        n_faces: no more than about so many.
        texture_size: side of the new maps, texels; None: as they were.
    """
    if mesh.n_faces <= n_faces:
        return mesh
    simple, before = decimate(mesh, n_faces), MeshDistance(mesh.vertices, mesh.faces)
    maps = [name for name in TRANSFERRED if name in mesh.texture]
    if mesh.has_uvs and maps:
        size = texture_size or max(max(mesh.texture[name].shape[:2]) for name in maps)
        simple = unwrap(simple, size)
        places = texels(simple, size)
        face, weights = _nearest(before, places.points)
        textures = {name: places.picture(texture_values(mesh, name, face, weights)) for name in maps}
        return simple.replace(texture=textures)
    colors = surface_colors(mesh, *_nearest(before, simple.vertices))
    return simple.replace(vertex_colors=colors)


def with_texture_size(mesh: Mesh, size: int) -> Mesh:
    """All maps scaled to `size` x `size` texels; normals stay of unit length."""
    scaled = {name: _scaled(image, size) for name, image in mesh.texture.items()}
    if "normal" in scaled:
        unit = torch.nn.functional.normalize(scaled["normal"][..., :3] * 2 - 1, dim=-1)
        scaled["normal"] = (unit + 1) / 2
    return mesh.replace(texture=scaled)


def as_points(asset: Asset, n: int | None, seed: int) -> PointCloud:
    """Points on a mesh, those of a cloud, or the centres of the most opaque Gaussians."""
    if isinstance(asset, Mesh):
        try:
            return sample_surface(asset, n or 100_000, seed)
        except ValueError as err:
            raise UserError("The mesh has no area to draw points from.") from err
    if isinstance(asset, Gaussians):
        strongest = asset.opacities.argsort(descending=True, stable=True)[:n].sort().values
        return PointCloud(asset.means[strongest], asset.colors[strongest])
    return asset if n is None else asset[:: -(-asset.n_points // n)]


def surface_of_splats(path: Path, gaussians: Gaussians, resolution: int) -> Mesh:
    """The surface that pictures of the Gaussians show, closed, with their colours at its vertices.

    Raises:
        RunFailed: none of them is visible.
    """
    reach = gaussians.means.abs() + REACH * gaussians.scales.amax(dim=1, keepdim=True)
    seen = gaussians.opacities > 0.05
    radius = float(reach[seen if bool(seen.any()) else slice(None)].max())
    cfg = {
        "geometry_convert_from": str(path),
        "radius": radius,
        "isosurface_resolution": resolution,
        "color_clip": 0.0,
        "max_num": max(gaussians.n, 1),
        "sh_degree": gaussians.sh_degree,
    }
    with torch.no_grad():
        geometry = GaussianSplatting(cfg)
        mesh = geometry.isosurface()
        colors = torch.sigmoid(geometry.export(mesh.vertices)["features"])
    return Mesh(mesh.vertices, mesh.faces, vertex_colors=colors)


def splats_of(path: Path, n: int) -> Gaussians:
    """`n` Gaussians on the surface of a mesh, or at the points of a cloud: nearly opaque, and half as wide as
    training would begin with, which could make them whatever it needs.
    """
    cfg = {
        "geometry_convert_from": str(path),
        "init_num_pts": n,
        "max_num": n,
        "color_clip": 0.0,
        "opacity_init": 0.9,
    }
    with torch.no_grad():
        cloud = GaussianSplatting(cfg).gaussians().detach()
    return cloud.replace(scales=0.5 * cloud.scales)


def _nearest(before: MeshDistance, points: Float[Tensor, "N 3"]) -> tuple[Tensor, Tensor]:
    """Face and weights of its corners."""
    _, face, pair = before.nearest(points)
    return face, torch.cat([pair, 1.0 - pair.sum(dim=-1, keepdim=True)], dim=-1)


def _scaled(image: Float[Tensor, "h w C"], size: int) -> Float[Tensor, "S S C"]:
    if tuple(image.shape[:2]) == (size, size):
        return image
    picture = image.permute(2, 0, 1)[None]
    grown = torch.nn.functional.interpolate(
        picture, (size, size), mode="bilinear", align_corners=False, antialias=True
    )
    return grown[0].permute(1, 2, 0).clamp(0.0, 1.0)

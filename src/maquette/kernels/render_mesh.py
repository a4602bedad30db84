"""Pictures of a mesh by ray casting: no display, no graphics driver, CPU and GPU alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import UserError
from maquette.kernels.raycast import RayHits, RayMesh
from maquette.ops.camera_batch import CameraBatch, make_camera_batch
from maquette.ops.cameras import look_at, orbit_to_position, ray_directions, rays
from maquette.ops.mesh import Mesh, bounding_box, vertex_normals
from maquette.ops.shading import lambert, light_directions

Shading = Literal["albedo", "lambert"]

AMBIENT, DIFFUSE = 0.45, 0.55
"""Shares of the two terms of "lambert" shading."""
UNPAINTED = 0.75
"""Grey of a mesh without colours."""


def render_mesh(
    mesh: Mesh,
    batch: CameraBatch,
    shading: Shading = "albedo",
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    supersample: int = 2,
    scene: RayMesh | None = None,
) -> dict[str, Float[Tensor, "B H W C"]]:
    """Render a mesh from each camera of a batch.

    Args:
        mesh: in the world frame; its base colour texture counts first, then vertex colours, then grey.
        batch: the cameras; poses, fields of view, sizes and light positions are read.
        shading: "albedo" shows the colour as it is, "lambert" lights it from the batch's light positions.
        background: colour behind the mesh.
        supersample: rays along each side of a pixel; their results are averaged.
        scene: the mesh's `RayMesh`, to build it once for many calls.

    Returns:
        ``rgb`` (B, H, W, 3); ``opacity`` (B, H, W, 1), the covered share of a pixel; ``depth`` (B, H, W, 1),
        the distance along the unit ray, mean over the covered part, 0 where nothing is; ``normal``
        (B, H, W, 3), unit smooth normals in the world frame turned to the viewer, 0 where nothing is.
    """
    if supersample < 1 or shading not in ("albedo", "lambert"):
        raise UserError(f"Cannot render with supersample={supersample}, shading={shading!r}.")
    painted = _Painter(mesh, scene or RayMesh(mesh.vertices, mesh.faces))
    views = [
        painted.view(batch, index, shading, background, supersample) for index in range(batch.batch_size)
    ]
    return {name: torch.stack([view[name] for view in views]) for name in views[0]}


def turntable(
    mesh: Mesh,
    n_views: int = 60,
    size: int = 256,
    elevation_deg: float = 15.0,
    distance: float | None = None,
    fovy_deg: float = 35.0,
    shading: Shading = "lambert",
) -> Float[Tensor, "N H W 3"]:
    """One turn around the vertical axis through the middle of the mesh, starting at its front.

    `distance` is that of the camera to the middle; None keeps the whole mesh in the picture from every side.
    """
    azimuth = torch.arange(n_views) * (360.0 / n_views)
    scene = RayMesh(mesh.vertices, mesh.faces)
    frames = []
    for start in range(0, n_views, 8):
        batch = orbit_batch(mesh, azimuth[start : start + 8], size, elevation_deg, distance, fovy_deg)
        frames.append(render_mesh(mesh, batch, shading, scene=scene)["rgb"])
    return torch.cat(frames)


def orbit_batch(
    mesh: Mesh,
    azimuth_deg: Float[Tensor, " B"],
    size: int,
    elevation_deg: float = 15.0,
    distance: float | None = None,
    fovy_deg: float = 35.0,
) -> CameraBatch:
    """Cameras around the middle of the mesh's box, each with a light up and to its left."""
    low, high = bounding_box(mesh)
    fovy = torch.deg2rad(torch.full_like(azimuth_deg, fovy_deg))
    if distance is None:
        radius = float((high - low).norm()) / 2
        distance = max(1e-3, 1.05 * radius / float(torch.sin(fovy[0] / 2)))
    distances = torch.full_like(azimuth_deg, distance)
    elevation = torch.full_like(azimuth_deg, elevation_deg)
    center = ((low + high) / 2).cpu().expand(len(azimuth_deg), 3)
    position = center + orbit_to_position(elevation, azimuth_deg, distances)
    up = torch.tensor([0.0, 0.0, 1.0]).expand_as(position)
    light = center + orbit_to_position(elevation + 30.0, azimuth_deg - 35.0, distances)
    batch = make_camera_batch(
        look_at(position, center, up),
        fovy,
        size,
        size,
        light_positions=light,
        elevation=elevation,
        azimuth=azimuth_deg,
        camera_distances=distances,
    )
    return batch.to(mesh.vertices.device)


@dataclass
class _Surface:
    """What the rays of one view met, one row a hit."""

    index: Tensor
    """Position of each hit among all rays."""
    hits: RayHits
    points: Float[Tensor, "N 3"]
    normals: Float[Tensor, "N 3"]


class _Painter:
    def __init__(self, mesh: Mesh, scene: RayMesh) -> None:
        self.mesh = mesh
        self.scene = scene
        self.normals = vertex_normals(mesh)

    def view(
        self,
        batch: CameraBatch,
        index: int,
        shading: Shading,
        background: tuple[float, float, float],
        supersample: int,
    ) -> dict[str, Float[Tensor, "H W C"]]:
        """One picture, all channels."""
        height, width = batch.height * supersample, batch.width * supersample
        one = slice(index, index + 1)
        rays_o, rays_d = rays(ray_directions(height, width, batch.fovy[one]), batch.c2w[one])
        surface = self._surface(rays_o.reshape(-1, 3), rays_d.reshape(-1, 3))
        colors = self._colors(surface.hits)
        if shading == "lambert":
            colors = colors * self._light(surface, batch.light_positions[index])
        values = torch.cat([colors, surface.normals, surface.hits.t[:, None]], dim=-1)
        spread = values.new_zeros(height * width, 8)
        spread[surface.index] = torch.cat([values, torch.ones_like(values[:, :1])], dim=-1)
        mean = F.avg_pool2d(spread.reshape(height, width, 8).permute(2, 0, 1), supersample).permute(1, 2, 0)
        return _channels(mean, background)

    def _surface(self, rays_o: Float[Tensor, "N 3"], rays_d: Float[Tensor, "N 3"]) -> _Surface:
        everything = self.scene.cast(rays_o, rays_d)
        index = everything.mask.nonzero()[:, 0]
        hits = RayHits(
            t=everything.t[index],
            face=everything.face[index],
            barycentric=everything.barycentric[index],
            normal=everything.normal[index],
        )
        directions = rays_d[index]
        normals = F.normalize(hits.interpolate(self.normals, self.mesh.faces), dim=-1)
        towards = torch.where((normals * directions).sum(-1, keepdim=True) > 0, -1.0, 1.0)
        return _Surface(index, hits, rays_o[index] + hits.t[:, None] * directions, normals * towards)

    def _colors(self, hits: RayHits) -> Float[Tensor, "N 3"]:
        mesh = self.mesh
        texture = mesh.texture.get("base_color")
        if texture is not None and mesh.uvs is not None and mesh.uv_faces is not None:
            return sample_texture(texture[..., :3], hits.interpolate(mesh.uvs, mesh.uv_faces))
        if mesh.vertex_colors is not None:
            return hits.interpolate(mesh.vertex_colors, mesh.faces)
        return torch.full_like(hits.normal, UNPAINTED)

    def _light(self, surface: _Surface, light: Float[Tensor, "3"]) -> Float[Tensor, "N 3"]:
        to_light = light_directions(surface.points, light.expand_as(surface.points))
        one = torch.ones_like(light)
        return lambert(surface.normals, to_light, DIFFUSE * one, AMBIENT * one)


def sample_texture(texture: Float[Tensor, "H W C"], uv: Float[Tensor, "N 2"]) -> Float[Tensor, "N C"]:
    """Bilinear values of a texture at coordinates with v upwards; the border repeats outside."""
    grid = torch.stack([2.0 * uv[:, 0] - 1.0, 1.0 - 2.0 * uv[:, 1]], dim=-1)[None, None]
    image = texture.permute(2, 0, 1)[None].to(uv.dtype)
    sampled = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled[0, :, 0].T


def _channels(
    mean: Float[Tensor, "H W 8"], background: tuple[float, float, float]
) -> dict[str, Float[Tensor, "H W C"]]:
    color, normal, distance, opacity = mean.split([3, 3, 1, 1], dim=-1)
    behind = mean.new_tensor(background)
    return {
        "rgb": color + (1.0 - opacity) * behind,
        "opacity": opacity,
        "depth": distance / opacity.clamp(min=1e-9),
        "normal": F.normalize(normal, dim=-1),
    }

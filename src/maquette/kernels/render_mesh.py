"""Pictures of a mesh: no display, no graphics driver, CPU and GPU alike."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
import warp as wp
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import UserError
from maquette.kernels.launch import array, launch_rows, parts_for
from maquette.kernels.render_mesh_kernels import GREY, TEXTURE, VERTEX_COLORS, Camera, cover, shade
from maquette.ops.camera_batch import CameraBatch, make_camera_batch
from maquette.ops.cameras import look_at, orbit_to_position
from maquette.ops.mesh import Mesh, bounding_box, vertex_normals

Shading = Literal["albedo", "lambert"]

AMBIENT, DIFFUSE = 0.45, 0.55
"""Shares of the two terms of "lambert" shading."""
UNPAINTED = 0.75
"""Grey of a mesh without colours."""
SMALLEST_BAND = 16
"""Rows of samples that are worth a job of their own on a CPU."""


def render_mesh(
    mesh: Mesh,
    batch: CameraBatch,
    shading: Shading = "albedo",
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    supersample: int = 2,
) -> dict[str, Float[Tensor, "B H W C"]]:
    """Render a mesh from each camera of a batch.

    Args:
        mesh: in the world frame; its base colour texture counts first, then vertex colours, then grey.
        batch: the cameras; poses, fields of view, sizes and light positions are read.
        shading: "albedo" shows the colour as it is, "lambert" lights it from the batch's light positions.
        background: colour behind the mesh.
        supersample: samples along each side of a pixel; their results are averaged.

    Returns:
        ``rgb`` (B, H, W, 3); ``opacity`` (B, H, W, 1), the covered share of a pixel; ``depth`` (B, H, W, 1),
        the distance along the unit ray, mean over the covered part, 0 where nothing is; ``normal``
        (B, H, W, 3), unit smooth normals in the world frame turned to the viewer, 0 where nothing is.
    """
    if supersample < 1 or shading not in ("albedo", "lambert"):
        raise UserError(f"Cannot render with supersample={supersample}, shading={shading!r}.")
    painted = _Painter(mesh)
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
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Float[Tensor, "N H W 3"]:
    """One turn around the vertical axis through the middle of the mesh, starting at its front.

    `distance` is that of the camera to the middle; None keeps the whole mesh in the picture from every side.
    """
    azimuth = torch.arange(n_views) * (360.0 / n_views)
    frames = []
    for start in range(0, n_views, 8):
        batch = orbit_batch(mesh, azimuth[start : start + 8], size, elevation_deg, distance, fovy_deg)
        frames.append(render_mesh(mesh, batch, shading, background)["rgb"])
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


class _Painter:
    """A mesh as the kernels read it."""

    def __init__(self, mesh: Mesh) -> None:
        self.vertices, self.normals = mesh.vertices.float(), vertex_normals(mesh).float()
        self.faces = mesh.faces.int()
        nothing = self.normals.new_zeros(1, 1, 3)
        self.paint, self.colors = GREY, nothing[0]
        self.texture, self.uvs, self.uv_faces = nothing, nothing[0, :, :2], self.faces
        texture = mesh.texture.get("base_color")
        if texture is not None and mesh.uvs is not None and mesh.uv_faces is not None:
            self.paint, self.texture = TEXTURE, texture[..., :3].float().contiguous()
            self.uvs, self.uv_faces = mesh.uvs.float(), mesh.uv_faces.int()
        elif mesh.vertex_colors is not None:
            self.paint, self.colors = VERTEX_COLORS, mesh.vertex_colors.float()

    def view(
        self,
        batch: CameraBatch,
        index: int,
        shading: Shading,
        background: tuple[float, float, float],
        supersample: int,
    ) -> dict[str, Float[Tensor, "H W C"]]:
        """One picture, all channels."""
        camera = _camera(batch, index, supersample)
        camera.paint, camera.grey = self.paint, UNPAINTED
        camera.ambient, camera.diffuse = (AMBIENT, DIFFUSE) if shading == "lambert" else (1.0, 0.0)
        rotation, position = batch.c2w[index, :3, :3], batch.c2w[index, :3, 3]
        points = array((self.vertices - position) @ rotation, wp.vec3)
        depth, seen = self._cover(camera, points)
        mean = self.vertices.new_empty(batch.height * batch.width, 8)
        surface = [points, array(self.normals @ rotation, wp.vec3), array(self.faces, wp.vec3i)]
        colors = [array(self.colors, wp.vec3), array(self.uvs, wp.vec2), array(self.uv_faces, wp.vec3i)]
        args = [camera, depth, seen, *surface, *colors, array(self.texture, wp.vec3), array(mean)]
        launch_rows(shade, len(mean), args, mean.device)
        return _channels(mean.reshape(batch.height, batch.width, 8), background)

    def _cover(self, camera: Any, points: Any) -> tuple[Any, Any]:
        """Depth and face at each sample; infinity and -1 where there is nothing."""
        shape, device = (camera.height, camera.width), self.vertices.device
        depth = array(self.vertices.new_full(shape, torch.inf))
        seen = array(self.faces.new_full(shape, -1))
        bands = parts_for(camera.height, SMALLEST_BAND) if device.type == "cpu" else camera.height
        args = [bands, camera, points, array(self.faces, wp.vec3i), depth, seen]
        launch_rows(cover, bands, args, device, smallest=1)
        return depth, seen


def _camera(batch: CameraBatch, index: int, supersample: int) -> Any:
    right, up, back, position = batch.c2w[index, :3].T
    light = (batch.light_positions[index] - position) @ batch.c2w[index, :3, :3]
    camera = Camera()
    camera.right, camera.up = wp.vec3(*right.tolist()), wp.vec3(*up.tolist())
    camera.back, camera.light = wp.vec3(*back.tolist()), wp.vec3(*light.tolist())
    camera.height, camera.width = batch.height * supersample, batch.width * supersample
    camera.side = supersample
    camera.focal = 0.5 * camera.height / math.tan(0.5 * float(batch.fovy[index]))
    return camera


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

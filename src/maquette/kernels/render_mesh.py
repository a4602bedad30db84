"""Pictures of a mesh: no display, no graphics driver, CPU and GPU alike."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.errors import UserError
from maquette.kernels.launch import array, start
from maquette.kernels.pixels import over_pixels
from maquette.kernels.rasterize import visible_faces
from maquette.kernels.render_mesh_kernels import GREY, TEXTURE, VERTEX_COLORS, Camera, Surface, shade
from maquette.kernels.texture import texture_levels
from maquette.kernels.topology import topology
from maquette.ops.camera_batch import CameraBatch
from maquette.ops.cameras import orbit_to_position
from maquette.ops.mesh import Mesh, bounding_box, vertex_normals
from maquette.ops.orbit import orbit_cameras

Shading = Literal["albedo", "lambert"]

AMBIENT, DIFFUSE = 0.45, 0.55
"""Shares of the two terms of "lambert" shading."""
UNPAINTED = 0.75
"""Grey of a mesh without colours."""
NEAREST = 1e-3
"""Nothing nearer than this is seen, as a fraction of the distance of the farthest vertex."""
MOST_SAMPLES = 2**21
"""Views are drawn together up to so many samples."""


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
    return _Painter(mesh).pictures(batch, shading, background, supersample)


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
    painted, frames = _Painter(mesh), []
    for begin in range(0, n_views, 8):
        batch = orbit_batch(mesh, azimuth[begin : begin + 8], size, elevation_deg, distance, fovy_deg)
        frames.append(painted.pictures(batch, shading, background, supersample=2)["rgb"])
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
    fovy = torch.full_like(azimuth_deg, fovy_deg)
    if distance is None:
        radius = float((high - low).norm()) / 2
        distance = max(1e-3, 1.05 * radius / math.sin(math.radians(fovy_deg) / 2))
    distances = torch.full_like(azimuth_deg, distance)
    elevation = torch.full_like(azimuth_deg, elevation_deg)
    center = ((low + high) / 2).cpu()
    light = orbit_to_position(elevation + 30.0, azimuth_deg - 35.0, distances)
    batch = orbit_cameras(elevation, azimuth_deg, distances, fovy, size, size, center, light)
    return batch.to(mesh.vertices.device)


class _Painter:
    """A mesh as the kernels read it."""

    def __init__(self, mesh: Mesh) -> None:
        self.faces = topology(mesh.faces, mesh.n_vertices, "vertices").faces
        self.vertices, self.normals = mesh.vertices.float(), vertex_normals(mesh).float()
        nothing = self.normals.new_zeros(1, 3)
        if mesh.n_vertices == 0:
            self.vertices, self.normals = nothing, nothing
        self.surface, self.paint = _surface(self.faces, nothing), GREY
        texture = mesh.texture.get("base_color")
        if texture is not None and mesh.uvs is not None and mesh.uv_faces is not None:
            self.paint = TEXTURE
            _put_texture(self.surface, texture, mesh.uvs, mesh.uv_faces)
        elif mesh.vertex_colors is not None:
            self.paint, self.surface.colors = VERTEX_COLORS, _held(mesh.vertex_colors.float(), wp.vec3)

    def pictures(
        self,
        batch: CameraBatch,
        shading: Shading,
        background: tuple[float, float, float],
        supersample: int,
    ) -> dict[str, Float[Tensor, "B H W C"]]:
        """Pictures from all cameras, as many views at once as keep the samples few."""
        samples = batch.height * batch.width * supersample**2
        together = max(1, MOST_SAMPLES // samples)
        means = torch.cat(
            [
                self._means(
                    batch, range(first, min(first + together, batch.batch_size)), shading, supersample
                )
                for first in range(0, batch.batch_size, together)
            ]
        )
        return _channels(means.reshape(-1, batch.height, batch.width, 8), background)

    def _means(
        self, batch: CameraBatch, views: range, shading: Shading, supersample: int
    ) -> Float[Tensor, "B N 8"]:
        """What `shade` gives for the pixels of some views."""
        cameras = [_camera(batch, view, supersample) for view in views]
        rotation = batch.c2w[views.start : views.stop, :3, :3].float()
        position = batch.c2w[views.start : views.stop, None, :3, 3].float()
        points, normals = (self.vertices - position) @ rotation, self.normals @ rotation
        keys = visible_faces(_clip(cameras, points), self.faces, cameras[0].height, cameras[0].width)
        means = points.new_empty(len(views), batch.height * batch.width, 8)
        for index, camera in enumerate(cameras):
            camera.paint, camera.grey = self.paint, UNPAINTED
            camera.ambient, camera.diffuse = (AMBIENT, DIFFUSE) if shading == "lambert" else (1.0, 0.0)
            self.surface.points = _held(points[index], wp.vec3)
            self.surface.normals = _held(normals[index], wp.vec3)
            args = [camera, self.surface, array(keys[index]), array(means[index])]
            over_pixels(shade, means.shape[1], args, means.device)
        return means


def _surface(faces: Int[Tensor, "F 3"], nothing: Float[Tensor, "1 3"]) -> Any:
    """A mesh for `shade`, without paint; where it is comes with each view."""
    start()
    surface = Surface()
    surface.faces, surface.uv_faces = _held(faces, wp.vec3i), _held(faces, wp.vec3i)
    surface.colors, surface.uvs = _held(nothing, wp.vec3), _held(nothing[:, :2], wp.vec2)
    surface.texels = _held(nothing[None], wp.float32)
    surface.levels = _held(faces.new_zeros(1, 3), wp.vec3i)
    return surface


def _put_texture(
    surface: Any, texture: Float[Tensor, "h w C"], uvs: Float[Tensor, "U 2"], uv_faces: Int[Tensor, "F 3"]
) -> None:
    texels, levels = texture_levels(texture[None, ..., :3].float(), mipmaps=True)
    surface.texels, surface.levels = _held(texels, wp.float32), _held(levels, wp.vec3i)
    surface.uvs = _held(uvs.float(), wp.vec2)
    surface.uv_faces = _held(topology(uv_faces, len(uvs), "texture coordinates").faces, wp.vec3i)


def _held(tensor: Tensor, dtype: Any) -> Any:
    """A tensor as a field of a struct, which keeps it alive."""
    return wp.from_torch(tensor.detach().contiguous(), dtype=dtype, requires_grad=False)


def _clip(cameras: list[Any], points: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 4"]:
    """Points of the cameras' frames in clip space, the near planes before all that can be seen."""
    x, y, depth = points[..., 0], -points[..., 1], -points[..., 2]
    seen = torch.isfinite(depth) & (depth > 0)
    farthest = torch.where(seen, depth, 0.0).amax(dim=1, keepdim=True)
    nearest = torch.where(seen, depth, torch.inf).amin(dim=1, keepdim=True)
    near = torch.maximum(0.5 * nearest, NEAREST * farthest)
    scale_x = points.new_tensor([[2.0 * camera.focal / camera.width] for camera in cameras])
    scale_y = points.new_tensor([[2.0 * camera.focal / camera.height] for camera in cameras])
    return torch.stack([scale_x * x, scale_y * y, depth - 2.0 * near, depth], dim=-1)


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
    mean: Float[Tensor, "B H W 8"], background: tuple[float, float, float]
) -> dict[str, Float[Tensor, "B H W C"]]:
    color, normal, distance, opacity = mean.split([3, 3, 1, 1], dim=-1)
    behind = mean.new_tensor(background)
    return {
        "rgb": color + (1.0 - opacity) * behind,
        "opacity": opacity,
        "depth": distance / opacity.clamp(min=1e-9),
        "normal": F.normalize(normal, dim=-1),
    }

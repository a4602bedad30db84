"""Points with colours and normals in the world frame (z up, +x front), and points drawn from a surface."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.random import StepRandom
from maquette.ops.mesh import Mesh, face_areas, face_normals


@dataclass(eq=False)
class PointCloud:
    """Points, each with a colour and a normal where the cloud has them."""

    points: Float[Tensor, "N 3"]
    """World positions."""
    colors: Float[Tensor, "N 3"] | None = None
    """Display (sRGB) colours in [0, 1]."""
    normals: Float[Tensor, "N 3"] | None = None
    """Unit outward normals."""

    @property
    def n_points(self) -> int:
        """Number of points."""
        return int(self.points.shape[0])

    def replace(self, **changes: Any) -> PointCloud:
        """A copy with some fields exchanged; tensors that are not exchanged are shared."""
        return dataclasses.replace(self, **changes)

    def __getitem__(self, rows: Any) -> PointCloud:
        """Some of the points: a slice, indices, or a mask."""

        def some(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[rows]

        return PointCloud(self.points[rows], some(self.colors), some(self.normals))


def sample_surface(mesh: Mesh, n: int, seed: int = 0) -> PointCloud:
    """`n` points spread evenly over the area of a mesh, with its colours there and the normals of its faces.

    The same mesh, number and seed always give the same points. Colours come from the base colour texture,
    else from vertex colours; without either there are none.

    Raises:
        ValueError: the mesh has no area.
    """
    areas = face_areas(mesh).double()
    total = areas.sum()
    if not bool(torch.isfinite(total)) or float(total) <= 0.0:
        raise ValueError("points cannot be drawn from a mesh without area")
    draw = StepRandom(seed, 0, (0,)).uniform("surface", n, 3)[0].to(mesh.vertices)
    place = (torch.arange(n, device=areas.device) + draw[:, 0].double()) / n * total
    face = torch.searchsorted(areas.cumsum(0), place).clamp(max=mesh.n_faces - 1)
    weights = _barycentric(draw[:, 1], draw[:, 2])
    points = _at(mesh.vertices[mesh.faces[face]], weights)
    return PointCloud(points, surface_colors(mesh, face, weights), face_normals(mesh)[face])


def surface_colors(
    mesh: Mesh, face: Int[Tensor, "N"], weights: Float[Tensor, "N 3"]
) -> Float[Tensor, "N 3"] | None:
    """Display colours of points given by face and weights of its corners; None for an unpainted mesh.

    Raises:
        ValueError: the base colour texture has two channels.
    """
    if mesh.has_uvs and "base_color" in mesh.texture:
        values = texture_values(mesh, "base_color", face, weights)
        if values.shape[1] == 2:
            raise ValueError("a base colour texture has one channel, or at least three; this one has 2")
        return values.expand(-1, 3)
    if mesh.vertex_colors is not None:
        return _at(mesh.vertex_colors[mesh.faces[face]], weights)
    return None


def texture_values(
    mesh: Mesh, name: str, face: Int[Tensor, "N"], weights: Float[Tensor, "N 3"]
) -> Float[Tensor, "N C"]:
    """Values of a texture map at points given by face and weights of its corners, bilinear; at most three
    channels. The image repeats outside of [0, 1], as is the default of glTF.

    Raises:
        ValueError: the mesh has no such map, or no texture coordinates.
    """
    if mesh.uvs is None or mesh.uv_faces is None or name not in mesh.texture:
        raise ValueError(f"the mesh has no texture {name!r}")
    return _looked_up(mesh.texture[name], _at(mesh.uvs[mesh.uv_faces[face]], weights))


def painted(mesh: Mesh) -> Mesh:
    """The mesh with its texture's colours at its vertices, where it has a texture and no such colours."""
    if mesh.vertex_colors is not None or not mesh.has_uvs or "base_color" not in mesh.texture:
        return mesh
    corner = torch.arange(3 * mesh.n_faces, device=mesh.faces.device)
    at = torch.zeros(mesh.n_vertices, dtype=torch.long, device=corner.device)
    at[mesh.faces.T.reshape(-1)] = corner
    weights = torch.eye(3, device=corner.device)[at // mesh.n_faces].to(mesh.vertices)
    return mesh.replace(vertex_colors=surface_colors(mesh, at % mesh.n_faces, weights))


def _barycentric(a: Float[Tensor, "N"], b: Float[Tensor, "N"]) -> Float[Tensor, "N 3"]:
    """Uniform over a triangle (Osada et al. 2002, "Shape distributions", section 3.1)."""
    root = a.sqrt()
    return torch.stack([1.0 - root, root * (1.0 - b), root * b], dim=-1)


def _at(corners: Float[Tensor, "N 3 C"], weights: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
    mean: Tensor = (corners * weights[..., None]).sum(dim=1)
    return mean


def _looked_up(image: Float[Tensor, "h w C"], uv: Float[Tensor, "N 2"]) -> Float[Tensor, "N D"]:
    uv = torch.where((uv < 0.0) | (uv > 1.0), uv - uv.floor(), uv)  # 1 itself is the far end of the image
    grid = torch.stack([uv[:, 0] * 2.0 - 1.0, 1.0 - uv[:, 1] * 2.0], dim=-1)[None, :, None]
    picture = image[..., :3].permute(2, 0, 1)[None].to(uv)
    return F.grid_sample(picture, grid, padding_mode="border", align_corners=False)[0, :, :, 0].T

"""Values of a surface as a texture or at its vertices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from maquette.kernels.raycast import RayHits
from maquette.kernels.uv_raster import rasterize_uv
from maquette.ops.image import dilate, fill_unpainted
from maquette.ops.mesh import Mesh, vertex_normals
from maquette.ops.tangents import mesh_tangents, orthogonal_tangent

PADDING = 4
CHUNK = 2**16
"""Points asked at once."""

ColorQuery = Callable[[Float[Tensor, "N 3"], Float[Tensor, "N 3"]], Float[Tensor, "N 3"]]
"""Colours of surface points, given positions and unit outward normals."""
MapQuery = Callable[[Float[Tensor, "N 3"], Float[Tensor, "N 3"]], dict[str, Tensor]]
"""Several values (N, C) of surface points by name."""


@dataclass(frozen=True, eq=False)
class Texels:
    """The surface points at the N texel centres that the charts of a mesh cover."""

    mask: Bool[Tensor, "S S"]
    """Which texels these are, row by row from the top (v = 1)."""
    points: Float[Tensor, "N 3"]
    """World positions."""
    normals: Float[Tensor, "N 3"]
    """Unit outward normals, smooth over the surface."""
    tangents: Float[Tensor, "N 4"]
    """Unit tangents along u, and the sign of the bitangent (`ops.tangents`)."""
    hits: RayHits
    """The face of each of the S * S texels."""

    def tangents_of(self, mesh: Mesh) -> Float[Tensor, "N 4"]:
        """Tangents along u of other texture coordinates for the same faces."""
        return _tangents(self.hits, mesh, self.normals)

    def picture(self, values: Float[Tensor, "N C"], padding: int = PADDING) -> Float[Tensor, "S S C"]:
        """The texture with these values: charts grow by `padding` texels, and what is left is filled
        smoothly, so that no filtering ever meets an unpainted texel.
        """
        image = values.new_zeros(*self.mask.shape, values.shape[-1])
        image[self.mask] = values
        return fill_unpainted(*dilate(image, self.mask, padding))


def texels(mesh: Mesh, size: int) -> Texels:
    """The surface points of a `size` x `size` texture.

    Raises:
        ValueError: the mesh has no texture coordinates.
    """
    if mesh.uvs is None or mesh.uv_faces is None:
        raise ValueError("a mesh must be unwrapped before its texture is baked")
    hits = rasterize_uv(mesh.uvs, mesh.uv_faces, size, size)
    normals = F.normalize(hits.interpolate(vertex_normals(mesh), mesh.faces)[hits.mask], dim=-1)
    return Texels(
        mask=hits.mask.reshape(size, size),
        points=hits.interpolate(mesh.vertices, mesh.faces)[hits.mask],
        normals=normals,
        tangents=_tangents(hits, mesh, normals),
        hits=hits,
    )


def bake_texture(
    mesh: Mesh, query: ColorQuery, size: int, padding: int = PADDING, chunk: int = CHUNK
) -> Float[Tensor, "S S 3"]:
    """The base colour texture of an unwrapped mesh: every texel asks for the colour of its surface point."""
    spots = texels(mesh, size)
    return spots.picture(ask(query, spots.points, spots.normals, chunk), padding)


def bake_vertex_colors(mesh: Mesh, query: ColorQuery, chunk: int = CHUNK) -> Float[Tensor, "V 3"]:
    """The colour of each vertex."""
    return ask(query, mesh.vertices, F.normalize(vertex_normals(mesh), dim=-1), chunk)


def ask(
    query: ColorQuery, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"], chunk: int = CHUNK
) -> Float[Tensor, "N 3"]:
    """Colours of many points, `chunk` at once."""
    return ask_maps(lambda point, normal: {"color": query(point, normal)}, points, normals, chunk)["color"]


def ask_maps(
    query: MapQuery, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"], chunk: int = CHUNK
) -> dict[str, Tensor]:
    """Values of many points, `chunk` at once."""
    pieces = zip(torch.split(points, chunk), torch.split(normals, chunk), strict=True)
    answers = [query(point, normal) for point, normal in pieces]
    return {name: torch.cat([answer[name] for answer in answers]) for name in answers[0]}


def _tangents(hits: RayHits, mesh: Mesh, normals: Float[Tensor, "N 3"]) -> Float[Tensor, "N 4"]:
    tangents, corners = mesh_tangents(mesh)
    along = hits.interpolate(tangents, corners)[hits.mask]
    sign = torch.where(along[:, 3:] < 0, -1.0, 1.0)
    return torch.cat([orthogonal_tangent(along[:, :3], normals), sign], dim=-1)

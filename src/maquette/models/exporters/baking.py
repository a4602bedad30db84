"""Colours of a surface as a texture or at its vertices."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.kernels.uv_raster import rasterize_uv
from maquette.ops.image import dilate, fill_unpainted
from maquette.ops.mesh import Mesh, vertex_normals

ColorQuery = Callable[[Float[Tensor, "N 3"], Float[Tensor, "N 3"]], Float[Tensor, "N 3"]]
"""Colours of surface points, given positions and unit outward normals."""


def bake_texture(
    mesh: Mesh, query: ColorQuery, size: int, padding: int = 4, chunk: int = 2**16
) -> Float[Tensor, "S S 3"]:
    """The base colour texture of an unwrapped mesh.

    Every texel whose centre lies in a chart asks for the colour of its surface point; charts then grow by
    `padding` texels, and what is left is filled smoothly, so that no filtering ever meets an unpainted texel.

    Args:
        mesh: with texture coordinates.
        query: colours of surface points.
        size: side of the texture, texels.
        padding: how far charts grow, texels.
        chunk: points asked at once.
    """
    if mesh.uvs is None or mesh.uv_faces is None:
        raise ValueError("a mesh must be unwrapped before its texture is baked")
    hits = rasterize_uv(mesh.uvs, mesh.uv_faces, size, size)
    points = hits.interpolate(mesh.vertices, mesh.faces)[hits.mask]
    normals = hits.interpolate(vertex_normals(mesh), mesh.faces)[hits.mask]
    texture = points.new_zeros(size * size, 3)
    texture[hits.mask] = ask(query, points, normals, chunk)
    image, painted = dilate(texture.reshape(size, size, 3), hits.mask.reshape(size, size), padding)
    return fill_unpainted(image, painted)


def bake_vertex_colors(mesh: Mesh, query: ColorQuery, chunk: int = 2**16) -> Float[Tensor, "V 3"]:
    """The colour of each vertex."""
    return ask(query, mesh.vertices, vertex_normals(mesh), chunk)


def ask(
    query: ColorQuery, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"], chunk: int
) -> Float[Tensor, "N 3"]:
    """Colours of many points, `chunk` at once; normals are made unit length."""
    normals = torch.nn.functional.normalize(normals, dim=-1)
    if len(points) == 0:
        return points.new_zeros(0, 3)
    pieces = zip(torch.split(points, chunk), torch.split(normals, chunk), strict=True)
    return torch.cat([query(point, normal) for point, normal in pieces])

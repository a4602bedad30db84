"""Frames on a surface, and normals given in them.

A frame is (tangent, bitangent, normal), orthonormal and right-handed unless a mirrored texture turns the
bitangent around. In a textured frame the tangent follows u and the bitangent v (upwards), as tangent-space
normal maps of glTF have it. Where there is no texture, the tangent points east and the bitangent north
(`east_of`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from maquette.ops.mesh import Mesh, triangles, unique_pairs, vertex_normals

_TINY = 1e-12


def east_of(normal: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """Unit tangents that are level (no z) and point counter-clockwise around the world's z axis.

    Where the normal is vertical there is no east: +y stands in, as for a normal that leans towards +x.
    """
    x, y = normal[..., 0], normal[..., 1]
    vertical = x * x + y * y < _TINY
    level = torch.stack([torch.where(vertical, 0.0, -y), torch.where(vertical, 1.0, x)], dim=-1)
    return F.pad(F.normalize(level, dim=-1), (0, 1))


def bitangent_of(
    normal: Float[Tensor, "*N 3"], tangent: Float[Tensor, "*N 3"] | Float[Tensor, "*N 4"]
) -> Float[Tensor, "*N 3"]:
    """n x t, times the sign in the tangent's fourth component if it has one."""
    bitangent: Tensor = torch.linalg.cross(normal, tangent[..., :3], dim=-1)
    return bitangent * tangent[..., 3:] if tangent.shape[-1] == 4 else bitangent


def from_tangent_space(
    local: Float[Tensor, "*N 3"],
    normal: Float[Tensor, "*N 3"],
    tangent: Float[Tensor, "*N 3"] | Float[Tensor, "*N 4"],
) -> Float[Tensor, "*N 3"]:
    """World vectors of unit length, given components along tangent, bitangent and normal."""
    bitangent = bitangent_of(normal, tangent)
    world = local[..., :1] * tangent[..., :3] + local[..., 1:2] * bitangent + local[..., 2:] * normal
    return F.normalize(world, dim=-1)


def to_tangent_space(
    world: Float[Tensor, "*N 3"],
    normal: Float[Tensor, "*N 3"],
    tangent: Float[Tensor, "*N 3"] | Float[Tensor, "*N 4"],
) -> Float[Tensor, "*N 3"]:
    """Components of world vectors along tangent, bitangent and normal."""
    axes = (tangent[..., :3], bitangent_of(normal, tangent), normal)
    return torch.stack([(world * axis).sum(dim=-1) for axis in axes], dim=-1)


def orthogonal_tangent(
    tangent: Float[Tensor, "*N 3"], normal: Float[Tensor, "*N 3"]
) -> Float[Tensor, "*N 3"]:
    """The tangent's unit direction within the plane of the unit normal; `east_of` where it has none."""
    level = tangent - (tangent * normal).sum(dim=-1, keepdim=True) * normal
    usable = level.square().sum(dim=-1, keepdim=True) > _TINY
    return F.normalize(torch.where(usable, level, east_of(normal)), dim=-1)


def mesh_tangents(mesh: Mesh) -> tuple[Float[Tensor, "T 4"], Int[Tensor, "F 3"]]:
    """Unit tangents (xyz, and the sign of the bitangent) of a textured mesh, and one of them for each corner.

    Corners that share vertex and texture coordinate share a tangent: the mean of those of their faces,
    weighted by area, made orthogonal to the vertex normal. Faces that are mirrored in the texture have
    tangents of their own, also where they share both with others (as in Mikkelsen 2008).

    Raises:
        ValueError: the mesh has no texture coordinates.
    """
    if mesh.uvs is None or mesh.uv_faces is None:
        raise ValueError("tangents follow texture coordinates, which this mesh does not have")
    mirrored = (_area_in_texture(mesh) < 0).to(mesh.uv_faces.dtype)
    corners = torch.stack([mesh.faces, 2 * mesh.uv_faces + mirrored], dim=-1).reshape(-1, 2)
    pairs, index, _ = unique_pairs(corners)
    along_u, along_v = (vectors.repeat_interleave(3, dim=0) for vectors in face_tangents(mesh))
    zeros = mesh.vertices.new_zeros(len(pairs), 3)
    tangent, bitangent = zeros.index_add(0, index, along_u), zeros.index_add(0, index, along_v)
    normal = vertex_normals(mesh)[pairs[:, 0]]
    tangent = orthogonal_tangent(tangent, normal)
    right = (torch.linalg.cross(normal, tangent, dim=-1) * bitangent).sum(dim=-1, keepdim=True) >= 0
    return torch.cat([tangent, torch.where(right, 1.0, -1.0)], dim=-1), index.reshape(-1, 3)


def face_tangents(mesh: Mesh) -> tuple[Float[Tensor, "F 3"], Float[Tensor, "F 3"]]:
    """Directions of growing u and of growing v on each face, as long as the face is large; zero where a face
    has no area in the texture.
    """
    assert mesh.uvs is not None and mesh.uv_faces is not None
    a, b, c = triangles(mesh).unbind(dim=1)
    p, q, r = mesh.uvs[mesh.uv_faces].unbind(dim=1)
    first, second = b - a, c - a
    u1, v1 = (q - p)[:, :1], (q - p)[:, 1:]
    u2, v2 = (r - p)[:, :1], (r - p)[:, 1:]
    side = torch.sign(_area_in_texture(mesh))
    size = torch.linalg.cross(first, second, dim=-1).norm(dim=-1, keepdim=True)
    along_u = F.normalize(side * (v2 * first - v1 * second), dim=-1)
    along_v = F.normalize(side * (u1 * second - u2 * first), dim=-1)
    return along_u * size, along_v * size


def _area_in_texture(mesh: Mesh) -> Float[Tensor, "F 1"]:
    """Twice the area of each face in the texture, negative where it is mirrored."""
    assert mesh.uvs is not None and mesh.uv_faces is not None
    p, q, r = mesh.uvs[mesh.uv_faces].unbind(dim=1)
    first, second = q - p, r - p
    area: Tensor = first[:, :1] * second[:, 1:] - second[:, :1] * first[:, 1:]
    return area

"""A triangle mesh in the world frame (z up, +x front), and what can be computed from its tensors alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass
class Mesh:
    """Triangles with optional colours and textures.

    UV coordinates belong to face corners, not to vertices, so a seam does not split the surface: corner ``k``
    of face ``f`` has position ``vertices[faces[f, k]]`` and texture coordinate ``uvs[uv_faces[f, k]]``. ``u``
    runs to the right and ``v`` upwards, both in [0, 1]; row 0 of a texture map is its top (``v = 1``).
    """

    vertices: Float[Tensor, "V 3"]
    """World positions."""
    faces: Int[Tensor, "F 3"]
    """Vertex indices, counter-clockwise seen from outside."""
    vertex_colors: Float[Tensor, "V 3"] | None = None
    """Display (sRGB) colours in [0, 1]."""
    uvs: Float[Tensor, "U 2"] | None = None
    """Texture coordinates."""
    uv_faces: Int[Tensor, "F 3"] | None = None
    """Index into ``uvs`` for each face corner."""
    texture: dict[str, Float[Tensor, "H W C"]] = field(default_factory=dict)
    """Texture maps by name (``base_color``, ``metallic_roughness``, ``normal``), values in [0, 1]."""
    extras: dict[str, Any] = field(default_factory=dict)
    """What a file format may carry along: name, prompt, convention."""

    @property
    def n_vertices(self) -> int:
        """Number of vertices."""
        return int(self.vertices.shape[0])

    @property
    def n_faces(self) -> int:
        """Number of triangles."""
        return int(self.faces.shape[0])

    @property
    def has_uvs(self) -> bool:
        """Whether every face corner has a texture coordinate."""
        return self.uvs is not None and self.uv_faces is not None

    def replace(self, **changes: Any) -> Mesh:
        """A copy with some fields exchanged; tensors that are not exchanged are shared."""
        return dataclasses.replace(self, **changes)

    def to(self, device: torch.device | str) -> Mesh:
        """The same mesh with all its tensors on `device`."""

        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        return self.replace(
            vertices=self.vertices.to(device),
            faces=self.faces.to(device),
            vertex_colors=moved(self.vertex_colors),
            uvs=moved(self.uvs),
            uv_faces=moved(self.uv_faces),
            texture={name: image.to(device) for name, image in self.texture.items()},
        )


def triangles(mesh: Mesh) -> Float[Tensor, "F 3 3"]:
    """Corner positions of each face: face, corner, xyz."""
    return mesh.vertices[mesh.faces]


def face_vectors(mesh: Mesh) -> Float[Tensor, "F 3"]:
    """Outward face normals with a length of twice the face's area (the cross product of two edges)."""
    a, b, c = triangles(mesh).unbind(dim=1)
    vectors: Tensor = torch.linalg.cross(b - a, c - a, dim=-1)
    return vectors


def face_areas(mesh: Mesh) -> Float[Tensor, F]:
    """Area of each face."""
    areas: Tensor = 0.5 * torch.linalg.vector_norm(face_vectors(mesh), dim=-1)
    return areas


def face_normals(mesh: Mesh) -> Float[Tensor, "F 3"]:
    """Unit outward normal of each face; a face without area points up (+z)."""
    return _unit_or_up(face_vectors(mesh))


def vertex_normals(mesh: Mesh) -> Float[Tensor, "V 3"]:
    """Unit vertex normals, faces around a vertex weighted by area; (0, 0, 1) where there is no area."""
    vectors = face_vectors(mesh)
    normals = torch.zeros_like(mesh.vertices)
    for corner in range(3):
        normals = normals.index_add(0, mesh.faces[:, corner], vectors)
    return _unit_or_up(normals)


def bounding_box(mesh: Mesh) -> Float[Tensor, "2 3"]:
    """Lower and upper corner of the vertices that faces use; zeros for an empty mesh."""
    if mesh.n_faces == 0:
        return mesh.vertices.new_zeros(2, 3)
    corners = triangles(mesh).reshape(-1, 3)
    return torch.stack([corners.amin(dim=0), corners.amax(dim=0)])


def volume(mesh: Mesh) -> Float[Tensor, ""]:
    """Signed volume by the divergence theorem: positive where a closed surface faces outwards."""
    a, b, c = triangles(mesh).unbind(dim=1)
    total: Tensor = (a * torch.linalg.cross(b, c, dim=-1)).sum()
    return total / 6.0


def edges(mesh: Mesh) -> tuple[Int[Tensor, "E 2"], Int[Tensor, E]]:
    """Undirected edges (smaller vertex first, sorted) and the number of faces at each."""
    pairs = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    unique, _, counts = unique_pairs(pairs.sort(dim=1).values)
    return unique, counts


def component_labels(mesh: Mesh) -> tuple[Int[Tensor, F], int]:
    """Component of each face (faces that share a vertex are connected) and how many components there are.

    Components are numbered in the order of their smallest vertex index. Each vertex takes the smallest label
    in its faces, then follows labels to their end (pointer jumping), until nothing changes.
    """
    if mesh.n_faces == 0:
        return mesh.faces.new_zeros(0), 0
    label = torch.arange(mesh.n_vertices, device=mesh.faces.device)
    corners = mesh.faces.T.contiguous()
    while True:
        given = label[corners]
        lowest = torch.minimum(torch.minimum(given[0], given[1]), given[2]).repeat(3)
        lower = label.scatter_reduce(0, given.reshape(-1), lowest, "amin")
        lower = lower.scatter_reduce(0, corners.reshape(-1), lowest, "amin")
        lower = lower[lower]
        if torch.equal(lower, label):
            break
        label = lower
    labels, roots = _compact(label[mesh.faces[:, 0]], mesh.n_vertices)
    return labels, int(roots.numel())


def largest_components(mesh: Mesh, n: int = 1) -> Mesh:
    """Only the `n` components with the largest surface area."""
    labels, count = component_labels(mesh)
    if count <= n:
        return mesh
    keep = _component_areas(mesh, labels, count).topk(n).indices
    return select_faces(mesh, torch.isin(labels, keep))


def remove_small_components(mesh: Mesh, min_fraction: float) -> Mesh:
    """Without the components whose area is below `min_fraction` of the largest component's area."""
    labels, count = component_labels(mesh)
    if count <= 1:
        return mesh
    areas = _component_areas(mesh, labels, count)
    return select_faces(mesh, (areas >= min_fraction * areas.max())[labels])


def remove_short_components(mesh: Mesh, min_faces: int) -> Mesh:
    """Without the components that have fewer than `min_faces` faces, unless that is all of them."""
    labels, count = component_labels(mesh)
    faces = torch.bincount(labels, minlength=count)
    keep = faces >= min(min_faces, int(faces.max()) if count else 0)
    return mesh if bool(keep.all()) else select_faces(mesh, keep[labels])


def select_faces(mesh: Mesh, keep: Bool[Tensor, F]) -> Mesh:
    """The faces marked in `keep`, with vertices and texture coordinates that nothing uses left out."""
    faces, used = _compact(mesh.faces[keep], mesh.n_vertices)
    colors = None if mesh.vertex_colors is None else mesh.vertex_colors[used]
    uvs, uv_faces = None, None
    if mesh.uvs is not None and mesh.uv_faces is not None:
        uv_faces, used_uvs = _compact(mesh.uv_faces[keep], int(mesh.uvs.shape[0]))
        uvs = mesh.uvs[used_uvs]
    return mesh.replace(
        vertices=mesh.vertices[used], faces=faces, vertex_colors=colors, uvs=uvs, uv_faces=uv_faces
    )


def remove_degenerate_faces(mesh: Mesh, min_area: float = 0.0) -> Mesh:
    """Without faces that name a vertex twice or whose area is not above `min_area`."""
    a, b, c = mesh.faces.unbind(dim=1)
    distinct = (a != b) & (b != c) & (c != a)
    return select_faces(mesh, distinct & (face_areas(mesh) > min_area))


def weld(mesh: Mesh, tolerance: float = 0.0) -> Mesh:
    """Vertices in the same cell of a grid of size `tolerance` (0: the same position exactly) become one.

    The first vertex of a cell stays, with its colour. Every face stays, also one that loses a corner.
    """
    key = mesh.vertices if tolerance <= 0 else torch.round(mesh.vertices / tolerance)
    x, y, z = (torch.unique(column + 0.0, return_inverse=True)[1] for column in key.unbind(dim=1))
    inverse = unique_pairs(torch.stack([unique_pairs(torch.stack([x, y], dim=1))[1], z], dim=1))[1]
    order = torch.arange(mesh.n_vertices, device=inverse.device)
    first = torch.full_like(order, mesh.n_vertices).scatter_reduce(0, inverse, order, "amin")
    everything = torch.ones(mesh.n_faces, dtype=torch.bool, device=inverse.device)
    return select_faces(mesh.replace(faces=first[inverse][mesh.faces]), everything)


def merge_vertices(mesh: Mesh, tolerance: float = 0.0) -> Mesh:
    """`weld`, without the faces that lose a corner."""
    welded = weld(mesh, tolerance)
    a, b, c = welded.faces.unbind(dim=1)
    return select_faces(welded, (a != b) & (b != c) & (c != a))


def unique_pairs(pairs: Int[Tensor, "N 2"]) -> tuple[Int[Tensor, "K 2"], Int[Tensor, N], Int[Tensor, K]]:
    """The pairs that occur, sorted; where each given pair is among them; and how often each occurs.

    Sorts one number a pair, which is quicker than `torch.unique` of rows; the numbers must not be negative.
    """
    base = 1 + (int(pairs[:, 1].max()) if len(pairs) else 0)
    keys, inverse, counts = torch.unique(
        pairs[:, 0] * base + pairs[:, 1], return_inverse=True, return_counts=True
    )
    return torch.stack([keys // base, keys % base], dim=1), inverse, counts


def _component_areas(mesh: Mesh, labels: Int[Tensor, F], count: int) -> Float[Tensor, K]:
    return mesh.vertices.new_zeros(count).index_add(0, labels, face_areas(mesh))


def _compact(index: Int[Tensor, "*N"], size: int) -> tuple[Int[Tensor, "*N"], Int[Tensor, K]]:
    """Indices below `size` renumbered without gaps, and the old index of each new one."""
    used = torch.zeros(size, dtype=torch.bool, device=index.device)
    used[index.reshape(-1)] = True
    return (torch.cumsum(used, dim=0) - 1)[index], used.nonzero()[:, 0]


def _unit_or_up(vectors: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    length = vectors.norm(dim=-1, keepdim=True)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=vectors.dtype, device=vectors.device)
    return torch.where(length > 1e-20, vectors / length.clamp(min=1e-20), up)

"""Is this mesh healthy: what a game engine or a slicer would complain about, in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maquette.ops.mesh import (
    Mesh,
    bounding_box,
    component_labels,
    edges,
    face_areas,
    unique_pairs,
    volume,
    weld,
)

_MOST_TEXELS = 1024
_MOST_CANDIDATES, _AT_ONCE = 2**22, 2**20
_INSIDE = 1e-6
"""A texel belongs to a face when its centre is further inside than this (barycentric): neighbours share
edges, never texels."""


@dataclass(frozen=True, kw_only=True)
class MeshReport:
    """The health of one mesh. Vertices at the same position count as one."""

    vertices: int
    """Vertices that faces use."""
    faces: int
    components: int
    """Connected pieces."""
    closed: bool
    """Every edge has exactly two faces, which agree on which side is out."""
    manifold: bool
    """No edge has more than two faces."""
    boundary_edges: int
    """Edges with one face: the rims of holes."""
    holes: int
    """Connected rims of open edges."""
    non_manifold_edges: int
    """Edges with more than two faces."""
    degenerate_faces: int
    """Faces that name a vertex twice or have no area."""
    duplicate_faces: int
    """Faces with the same three corners as an earlier one, either way round."""
    area: float
    """World units squared."""
    volume: float
    """World units cubed; negative where a closed surface is inside out."""
    bounding_box: tuple[tuple[float, ...], tuple[float, ...]]
    """Lower and upper corner, world frame."""
    has_texture: bool
    """Whether a texture and coordinates for it are there."""
    textures: dict[str, tuple[int, ...]]
    """Rows, columns and channels of each map."""
    uv_overlap: float | None
    """Of the texels that faces claim, the share that more than one claims; None without coordinates."""

    @property
    def healthy(self) -> bool:
        """A closed manifold in one piece, right side out, without degenerate or duplicate faces."""
        sound = self.closed and self.manifold and self.degenerate_faces == 0 and self.duplicate_faces == 0
        return sound and self.components == 1 and self.volume > 0

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for a JSON file or a table."""
        return asdict(self) | {"healthy": self.healthy}


def mesh_report(mesh: Mesh) -> MeshReport:
    """Measure a mesh in the world frame; a mesh without faces has zeros."""
    surface = weld(Mesh(mesh.vertices.detach(), mesh.faces))
    counts = edges(surface)[1]
    low, high = bounding_box(surface).tolist()
    return MeshReport(
        vertices=surface.n_vertices,
        faces=surface.n_faces,
        components=component_labels(surface)[1],
        closed=is_closed(surface),
        manifold=bool((counts <= 2).all()),
        boundary_edges=int((counts == 1).sum()),
        holes=count_holes(surface),
        non_manifold_edges=int((counts > 2).sum()),
        degenerate_faces=int(degenerate_faces(surface).sum()),
        duplicate_faces=int(duplicate_faces(surface).sum()),
        area=float(face_areas(surface).sum()),
        volume=float(volume(surface)),
        bounding_box=(tuple(low), tuple(high)),
        has_texture=mesh.has_uvs and "base_color" in mesh.texture,
        textures={name: tuple(image.shape) for name, image in mesh.texture.items()},
        uv_overlap=uv_overlap(mesh),
    )


def is_closed(mesh: Mesh) -> bool:
    """Every edge has exactly two faces, and they run along it in opposite directions.

    Vertices count by index: `weld` a mesh whose seams are split first.
    """
    directed, _, counts = unique_pairs(directed_edges(mesh))
    there = directed[:, 0] < directed[:, 1]
    if mesh.n_faces == 0 or not bool((counts == 1).all()) or 2 * int(there.sum()) != len(directed):
        return False
    forward, backward = directed[there], directed[~there].flip(1)
    return torch.equal(forward, unique_pairs(backward)[0])


def directed_edges(mesh: Mesh) -> Int[Tensor, "E 2"]:
    """The three edges of each face as its corners run; edge ``k * F + f`` leaves corner k of face f."""
    return torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])


def open_edges(mesh: Mesh) -> Int[Tensor, "E 2"]:
    """Edges (smaller vertex first) along which not as many faces run one way as the other.

    A surface without any encloses a volume, also where bodies touch each other along an edge.
    """
    ends = directed_edges(mesh)
    ends = ends[ends[:, 0] != ends[:, 1]]
    unique, inverse, _ = unique_pairs(ends.sort(dim=1).values)
    way = torch.where(ends[:, 0] < ends[:, 1], 1, -1)
    return unique[torch.zeros_like(unique[:, 0]).index_add(0, inverse, way) != 0]


def count_holes(mesh: Mesh) -> int:
    """Connected rims of open edges; vertices count by index."""
    rims = open_edges(mesh)
    return component_labels(Mesh(mesh.vertices, rims[:, [0, 1, 1]]))[1]


def degenerate_faces(mesh: Mesh) -> Bool[Tensor, F]:
    """Faces that name a vertex twice or have no area."""
    a, b, c = mesh.faces.unbind(dim=1)
    return (a == b) | (b == c) | (c == a) | (face_areas(mesh) <= 0)


def duplicate_faces(mesh: Mesh) -> Bool[Tensor, F]:
    """Faces whose three corners an earlier face has, either way round."""
    label = corner_sets(mesh)
    order = torch.arange(mesh.n_faces, device=label.device)
    first = torch.full_like(order, mesh.n_faces).scatter_reduce(0, label, order, "amin")
    return first[label] != order


def corner_sets(mesh: Mesh) -> Int[Tensor, F]:
    """A number for each face, the same for faces that have the same three corners."""
    corners = mesh.faces.sort(dim=1).values
    pair = unique_pairs(corners[:, :2])[1]
    return unique_pairs(torch.stack([pair, corners[:, 2]], dim=1))[1]


def uv_overlap(mesh: Mesh) -> float | None:
    """Share of the claimed texels that more than one face claims; None for a mesh without coordinates.

    Counted at the centres of the texels of the largest map, at most 1024 a side; coordinates outside of
    [0, 1] claim nothing.
    """
    if mesh.uvs is None or mesh.uv_faces is None:
        return None
    sides = [max(image.shape[:2]) for image in mesh.texture.values()]
    corners = mesh.uvs.detach().double()[mesh.uv_faces]
    corners = corners[torch.isfinite(corners).all(dim=-1).all(dim=-1)]
    claims = _claims(corners, min(_MOST_TEXELS, max(sides, default=_MOST_TEXELS)))
    taken = int((claims > 0).sum())
    return int((claims > 1).sum()) / taken if taken else 0.0


def _claims(corners: Float[Tensor, "F 3 2"], side: int) -> Int[Tensor, T]:
    """How many faces hold the centre of each of side x side texels; fewer texels where that is too much."""
    low = (corners.amin(dim=1) * side - 0.5).ceil().clamp(0, side).long()
    high = (corners.amax(dim=1) * side - 0.5).floor().clamp(-1, side - 1).long()
    size = (high - low + 1).clamp(min=0)
    total = (size[:, 0] * size[:, 1]).cumsum(0)
    if len(total) == 0 or (int(total[-1]) > _MOST_CANDIDATES and side > 1):
        return _claims(corners, side // 2) if len(total) else total
    claims = torch.zeros(side * side, dtype=torch.long, device=corners.device)
    parts = torch.unique_consecutive(total // _AT_ONCE, return_counts=True)[1].tolist()
    split = (torch.split(values, parts) for values in (corners, low, size))
    for part, start, extent in zip(*split, strict=True):
        claims += torch.bincount(_held(part, start, extent, side), minlength=side * side)
    return claims


def _held(
    corners: Float[Tensor, "F 3 2"], low: Int[Tensor, "F 2"], size: Int[Tensor, "F 2"], side: int
) -> Int[Tensor, "N"]:
    """The texels that each face holds, of those in its box, which begins at `low`."""
    candidates = size[:, 0] * size[:, 1]
    face = torch.repeat_interleave(torch.arange(len(corners), device=corners.device), candidates)
    rank = torch.arange(len(face), device=face.device) - (candidates.cumsum(0) - candidates)[face]
    column = low[face, 0] + rank % size[face, 0]
    row = low[face, 1] + rank // size[face, 0]
    return (row * side + column)[_holds(corners, face, column, row, side)]


def _holds(
    corners: Float[Tensor, "F 3 2"],
    face: Int[Tensor, "N"],
    column: Int[Tensor, "N"],
    row: Int[Tensor, "N"],
    side: int,
) -> Bool[Tensor, "N"]:
    """Whether the centre of a texel is inside of a face (whichever way round)."""
    a = corners[:, 0]
    ab, ac = corners[:, 1] - a, corners[:, 2] - a
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    x = (column + 0.5) / side - a[face, 0]
    y = (row + 0.5) / side - a[face, 1]
    scale = torch.where(area == 0, torch.inf, area)[face]
    b = (x * ac[face, 1] - y * ac[face, 0]) / scale
    c = (y * ab[face, 0] - x * ab[face, 1]) / scale
    return (b > _INSIDE) & (c > _INSIDE) & (1 - b - c > _INSIDE)

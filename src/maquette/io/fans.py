"""One fan of faces around each vertex: edges of more than two faces and points in common taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from maquette.ops.mesh import Mesh, component_labels, triangles, unique_pairs
from maquette.ops.mesh_health import directed_edges

APART = 0.01
"""How far copies of a vertex that had to be split move into their own part of the surface, in faces."""
_ANGLES = 2**20
"""Steps of a turn that are told apart."""


def split(mesh: Mesh) -> tuple[Mesh, int]:
    """Vertices copied until each has one fan of faces around it; how many copies were made.

    Two faces are neighbours when they are partners at an edge (`partners`); corners at one vertex that
    neighbours connect are one fan. The largest fan keeps the vertex.
    """
    n = mesh.n_faces
    first, second = partners(mesh).unbind(dim=1)
    after = [(edge + n) % (3 * n) for edge in (first, second)]  # half-edge k n + f starts at corner k of f
    corners = torch.arange(3 * n, device=first.device)
    links = torch.cat(
        [
            torch.stack([first, after[1]], 1),
            torch.stack([second, after[0]], 1),
            corners[:, None].expand(-1, 2),
        ]
    )
    place = Mesh(mesh.vertices.new_zeros(3 * n, 3), links[:, [0, 1, 1]])
    fan = component_labels(place)[0][-3 * n :]
    vertex = torch.zeros_like(fan).scatter(0, fan, mesh.faces.T.reshape(-1))[: int(fan.max()) + 1]
    copies = len(vertex) - len(torch.unique(vertex))
    faces = fan.reshape(3, n).T.contiguous()
    colors = None if mesh.vertex_colors is None else mesh.vertex_colors[vertex]
    spread = mesh.replace(vertices=mesh.vertices[vertex], faces=faces, vertex_colors=colors)
    return (spread.replace(vertices=_apart(spread, vertex)) if copies else spread), copies


def bent(mesh: Mesh) -> tuple[Mesh, int]:
    """Where two pairs of faces share an edge and both its ends, one pair gets a vertex in the middle of it.

    Such places are left when both ends have one fan each: a handle as thin as an edge. A face is cut once.
    """
    ends, n = directed_edges(mesh), mesh.n_faces
    edge, count = unique_pairs(ends.sort(dim=1).values)[1:]
    seen: set[int] = set()
    cut: list[tuple[int, int]] = []
    pairs = partners(mesh)
    crowded = (count[edge[pairs[:, 0]]] > 2).nonzero()[:, 0]
    for first, second in pairs[crowded].tolist():
        place, faces = -1 - int(edge[first]), {first % n, second % n}
        if place in seen and not faces & seen:
            cut.append((first, second))
            seen |= faces
        seen.add(place)
    for first, second in cut:
        mesh = _cut_in_two(mesh, first, second, n)
    return mesh, len(cut)


def partners(mesh: Mesh) -> Int[Tensor, "P 2"]:
    """Pairs of half-edges in opposite directions, each in one pair at most.

    Where more than two faces meet, those are partners that have a wedge of the solid between them.
    """
    ends = directed_edges(mesh)
    edge, count = unique_pairs(ends.sort(dim=1).values)[1:]
    forward = ends[:, 0] < ends[:, 1]
    balance = torch.zeros_like(count).index_add(0, edge, torch.where(forward, 1, -1))
    plain = ((count == 2) & (balance == 0))[edge]
    both = [(plain & way).nonzero()[:, 0] for way in (forward, ~forward)]
    pairs = torch.stack([half[edge[half].argsort()] for half in both], dim=1)
    crowded = ((count > 2)[edge]).nonzero()[:, 0]
    order = crowded[edge[crowded].argsort(stable=True)]
    groups = torch.split(order, torch.unique_consecutive(edge[order], return_counts=True)[1].tolist())
    found = [pair for group in groups for pair in _wedges(mesh, group, ends, forward)]
    return torch.cat([pairs, pairs.new_tensor(found).reshape(-1, 2)])


def _apart(mesh: Mesh, origin: Int[Tensor, "V"]) -> Tensor:
    """Positions, those of copies moved towards the middle of their own faces."""
    size = torch.bincount(mesh.faces.reshape(-1), minlength=mesh.n_vertices)
    largest = torch.zeros_like(origin).scatter_reduce(0, origin, size, "amax", include_self=False)
    keeper = size == largest[origin]
    order = torch.arange(len(origin), device=origin.device)
    first = torch.full_like(origin, len(origin)).scatter_reduce(
        0, origin, torch.where(keeper, order, len(origin)), "amin"
    )
    middle = triangles(mesh).mean(dim=1).repeat(3, 1)
    total = torch.zeros_like(mesh.vertices).index_add(0, mesh.faces.T.reshape(-1), middle)
    inward = total / size.clamp(min=1)[:, None] - mesh.vertices
    return mesh.vertices + torch.where((first[origin] == order)[:, None], 0.0, APART) * inward


def _cut_in_two(mesh: Mesh, first: int, second: int, n: int) -> Mesh:
    """The faces of two half-edges, each cut from the middle of the edge to its opposite corner."""
    rows, corners = [first % n, second % n], [first // n, second // n]
    edge = mesh.faces[rows[0], [corners[0], (corners[0] + 1) % 3]]
    middle = mesh.vertices[edge].mean(dim=0)
    inward = mesh.vertices[mesh.faces[rows]].mean(dim=(0, 1)) - middle
    changes: dict[str, Any] = {
        "vertices": torch.cat([mesh.vertices, (middle + APART * inward)[None]]),
        "faces": _halved(mesh.faces, rows, corners, [mesh.n_vertices] * 2),
    }
    if mesh.vertex_colors is not None:
        changes["vertex_colors"] = torch.cat([mesh.vertex_colors, mesh.vertex_colors[edge].mean(0)[None]])
    if mesh.uvs is not None and mesh.uv_faces is not None:
        sides = [mesh.uv_faces[row, [k, (k + 1) % 3]] for row, k in zip(rows, corners, strict=True)]
        changes["uvs"] = torch.cat([mesh.uvs, *(mesh.uvs[side].mean(dim=0)[None] for side in sides)])
        changes["uv_faces"] = _halved(mesh.uv_faces, rows, corners, [len(mesh.uvs), len(mesh.uvs) + 1])
    return mesh.replace(**changes)


def _halved(
    faces: Int[Tensor, "F 3"], rows: Sequence[int], corners: Sequence[int], new: Sequence[int]
) -> Int[Tensor, "G 3"]:
    """Each row becomes the half with its corner; the other halves follow at the end."""
    faces, halves = faces.clone(), []
    for row, corner, vertex in zip(rows, corners, new, strict=True):
        half = faces[row].clone()
        half[corner] = vertex
        faces[row, (corner + 1) % 3] = vertex
        halves.append(half)
    return torch.cat([faces, torch.stack(halves)])


def _wedges(
    mesh: Mesh, half_edges: Int[Tensor, "K"], ends: Int[Tensor, "E 2"], forward: Tensor
) -> list[list[int]]:
    """Partners around one edge: seen along it, a forward face has the solid before it, a backward one after.

    Of two faces on each other the backward one comes first, so that they become partners: the wall between
    two solids that touch is parted from the outside of both.
    """
    low, high = mesh.vertices[ends[half_edges[0]].sort().values].double()
    opposite = mesh.faces[half_edges % mesh.n_faces, (half_edges // mesh.n_faces + 2) % 3]
    arms = mesh.vertices[opposite].double() - low
    axis = torch.nn.functional.normalize(high - low, dim=0)
    helper = torch.eye(3, dtype=axis.dtype, device=axis.device)[axis.abs().argmin()]
    right = torch.nn.functional.normalize(torch.linalg.cross(axis, helper), dim=0)
    angle = torch.atan2(arms @ torch.linalg.cross(axis, right), arms @ right)
    step = (angle / (2 * torch.pi) * _ANGLES).round().long() % _ANGLES
    around = half_edges[(2 * step + forward[half_edges]).argsort()].tolist()
    waiting: list[int] = []
    pairs: list[list[int]] = []
    for half_edge in around + around:
        if any(half_edge in pair for pair in pairs):
            continue
        if not bool(forward[half_edge]):
            if half_edge not in waiting:
                waiting.append(half_edge)
        elif waiting:
            pairs.append([half_edge, waiting.pop()])
    return pairs

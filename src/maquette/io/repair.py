"""A mesh made closed and manifold: what a slicer, a solid modeller or a simulation asks for.

Surfaces that pass through each other stay as they are: that is a question of solids, not of edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import manifold3d
import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from torch import Tensor

from maquette.core.errors import RunFailed
from maquette.io.fans import bent, partners, split
from maquette.ops.mesh import (
    Mesh,
    bounding_box,
    component_labels,
    face_areas,
    merge_vertices,
    select_faces,
    triangles,
    unique_pairs,
    volume,
    weld,
)
from maquette.ops.mesh_health import (
    corner_sets,
    count_holes,
    degenerate_faces,
    directed_edges,
    is_closed,
    open_edges,
)

WELD = 1e-6
"""Vertices nearer than this, as a share of the diagonal, are one where that closes gaps."""
FLAT = 1e-6
"""A piece whose volume is below this share of the cube of its size is a sheet folded onto itself."""
_ROUNDS = 8


@dataclass(frozen=True, kw_only=True)
class RepairReport:
    """What was done to a mesh, and what it is now."""

    welded_vertices: int = 0
    """Vertices that were at the place of another."""
    removed_faces: int = 0
    """Faces without a third corner, faces that were there twice, and pairs of faces back to back."""
    turned_faces: int = 0
    """Faces that were inside out."""
    split_vertices: int = 0
    """Copies made where more than two faces shared an edge, or parts met in one point only."""
    filled_holes: int = 0
    added_faces: int = 0
    """Faces that fill them."""
    closed: bool = False
    """Whether every edge now has two faces that agree on which side is out."""
    open_edges: int = 0
    """Edges that are still open."""

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for a JSON file."""
        return asdict(self)

    def __str__(self) -> str:
        done = {name.replace("_", " "): n for name, n in asdict(self).items() if n and name != "closed"}
        words = ", ".join(f"{n} {name}" for name, n in done.items()) or "nothing to mend"
        return f"{words}; {'closed' if self.closed else 'not closed'}"


def closed(mesh: Mesh) -> Mesh:
    """The mesh without holes, doubled faces and edges of more than two faces; see `repaired`.

    Raises:
        RunFailed: it cannot be closed; what is wrong is named.
    """
    mended, report = repaired(mesh)
    if not report.closed:
        raise RunFailed(
            "The mesh could not be closed.",
            [str(report), *open_places(mended)],
            hint="remesh it, or write it as .ply or .glb, which may be open",
        )
    return mended


def repaired(mesh: Mesh) -> tuple[Mesh, RepairReport]:
    """Weld, drop what is double, split what is joined too often, fill holes, turn outwards.

    Colours and texture coordinates stay; faces that fill a hole take those of its rim. Copies of a split
    vertex stand one percent of a face apart, so that a program that welds positions does not join them again.
    A mesh that is closed already comes back with the same faces.

    Args:
        mesh: any triangles, world frame.

    Returns:
        The mended mesh, and what was done. Pieces that enclose nothing, such as a sheet, fold onto themselves
        and go; where there is nothing else, no face is left.

    Raises:
        RunFailed: a position is not finite.
    """
    if not bool(torch.isfinite(mesh.vertices).all()):
        raise RunFailed("The mesh has positions that are not finite: nothing can be mended there.")
    welded = _welded(mesh)
    work = _without_doubles(merge_vertices(welded))
    removed = mesh.n_faces - work.n_faces
    work, turned = _wound(work)
    report = RepairReport(
        welded_vertices=len(torch.unique(mesh.faces)) - welded.n_vertices,
        removed_faces=removed,
        turned_faces=turned,
    )
    for _ in range(_ROUNDS):
        if work.n_faces == 0 or is_closed(work):
            break
        work, copies = split(work)
        work, middles = bent(work)
        work, holes, added = _filled(work)
        work = _without_doubles(work)
        report = replace(
            report,
            split_vertices=report.split_vertices + copies + middles,
            filled_holes=report.filled_holes + holes,
            added_faces=report.added_faces + added,
        )
    work, inverted = _outward(_without_sheets(work), each=turned > 0)
    report = replace(report, turned_faces=turned + inverted)
    return work, replace(report, closed=is_closed(work), open_edges=len(open_edges(work)))


def open_places(mesh: Mesh, most: int = 5) -> list[str]:
    """Lines that tell how open a mesh is and where, for an error message; none for a closed one."""
    surface = weld(Mesh(mesh.vertices, mesh.faces))
    ends = open_edges(surface)
    if len(ends) == 0:
        return []
    middles = surface.vertices[ends].mean(dim=1)[:most].tolist()
    places = "; ".join("({:.4g}, {:.4g}, {:.4g})".format(*middle) for middle in middles)
    more = " ..." if len(ends) > most else ""
    return [
        f"open edges: {len(ends)}, around {count_holes(surface)} holes",
        f"faces without area: {int(degenerate_faces(surface).sum())}",
        f"near: {places}{more}",
    ]


def _welded(mesh: Mesh) -> Mesh:
    """By exact position; more loosely where that leaves fewer open edges."""
    exact = weld(mesh)
    n_open = len(open_edges(exact))
    if n_open == 0:
        return exact
    low, high = bounding_box(exact)
    radius = WELD * float((high - low).norm())
    nearest = torch.arange(exact.n_vertices, device=exact.faces.device)
    for group in trimesh.grouping.clusters(exact.vertices.detach().cpu().numpy(), radius):
        nearest[torch.from_numpy(np.array(group))] = int(min(group))
    loose = weld(exact.replace(vertices=exact.vertices[nearest]))
    return loose if len(open_edges(loose)) < n_open else exact


def _without_doubles(mesh: Mesh) -> Mesh:
    """Of the faces on the same three vertices: none where as many look one way as the other, else one."""
    if mesh.n_faces == 0:
        return mesh
    label = corner_sets(mesh)
    a, b, c = mesh.faces.unbind(dim=1)
    way = torch.where((a < b) ^ (b < c) ^ (c < a), 1, -1)
    net = torch.zeros(int(label.max()) + 1, dtype=torch.long, device=label.device).index_add(0, label, way)
    order = torch.arange(mesh.n_faces, device=label.device)
    wanted = torch.where(net[label] * way > 0, order, mesh.n_faces)
    first = torch.full_like(net, mesh.n_faces).scatter_reduce(0, label, wanted, "amin")
    return select_faces(mesh, first[label] == order)


def _wound(mesh: Mesh) -> tuple[Mesh, int]:
    """Neighbours made to agree on which side is out (trimesh), where two do not; how many were turned."""
    if mesh.n_faces == 0 or int(unique_pairs(directed_edges(mesh))[2].max()) < 2:
        return mesh, 0
    solid = trimesh.Trimesh(mesh.vertices.detach().cpu().numpy(), mesh.faces.cpu().numpy(), process=False)
    trimesh.repair.fix_winding(solid)
    faces = torch.from_numpy(np.array(solid.faces, dtype=np.int64)).to(mesh.faces.device)
    turned = (faces != mesh.faces).any(dim=1)
    return _turned(mesh, turned), int(turned.sum())


def _outward(mesh: Mesh, each: bool) -> tuple[Mesh, int]:
    """The whole turned where its volume is negative; each piece of a mesh whose winding meant nothing."""
    if mesh.n_faces == 0:
        return mesh, 0
    labels, count = component_labels(mesh)
    if not each:
        labels, count = torch.zeros_like(labels), 1
    inverted = [float(volume(mesh.replace(faces=mesh.faces[labels == k]))) < 0 for k in range(count)]
    turned = torch.tensor(inverted, device=labels.device)[labels]
    return _turned(mesh, turned), int(turned.sum())


def _without_sheets(mesh: Mesh) -> Mesh:
    """Only the pieces that enclose something."""
    if mesh.n_faces == 0:
        return mesh
    labels, count = component_labels(mesh)
    a, b, c = triangles(mesh).double().unbind(dim=1)
    middle = a.new_zeros(count, 3).index_add(0, labels, a) / torch.bincount(labels)[:, None]
    a, b, c = a - middle[labels], b - middle[labels], c - middle[labels]
    sixfold = (a * torch.linalg.cross(b, c, dim=-1)).sum(dim=-1)
    enclosed = a.new_zeros(count).index_add(0, labels, sixfold).abs() / 6.0
    area = a.new_zeros(count).index_add(0, labels, face_areas(mesh).double())
    solid = enclosed > FLAT * area**1.5
    return mesh if bool(solid.all()) else select_faces(mesh, solid[labels])


def _turned(mesh: Mesh, which: Tensor) -> Mesh:
    uv_faces = mesh.uv_faces
    if uv_faces is not None:
        uv_faces = torch.where(which[:, None], uv_faces.flip(1), uv_faces)
    return mesh.replace(faces=torch.where(which[:, None], mesh.faces.flip(1), mesh.faces), uv_faces=uv_faces)


def _filled(mesh: Mesh) -> tuple[Mesh, int, int]:
    """Every rim filled with triangles on its own vertices; how many rims, how many triangles."""
    paired = torch.zeros(3 * mesh.n_faces, dtype=torch.bool, device=mesh.faces.device)
    paired[partners(mesh).reshape(-1)] = True
    rim = (~paired).nonzero()[:, 0]
    ends = directed_edges(mesh)[rim]
    loops = [loop for loop in _loops(ends.flip(1).tolist()) if len(loop) > 2]
    new = [_triangulated(mesh.vertices[loop].detach().cpu().numpy(), loop) for loop in loops]
    if not new:
        return mesh, 0, 0
    added = torch.from_numpy(np.concatenate(new)).to(mesh.faces)
    uv_faces = mesh.uv_faces
    if uv_faces is not None:
        coordinate = torch.zeros(mesh.n_vertices, dtype=torch.long, device=added.device)
        coordinate[mesh.faces.reshape(-1)] = uv_faces.reshape(-1)
        uv_faces = torch.cat([uv_faces, coordinate[added]])
    return mesh.replace(faces=torch.cat([mesh.faces, added]), uv_faces=uv_faces), len(loops), len(added)


def _loops(ends: Sequence[Sequence[int]]) -> list[list[int]]:
    """Closed ways along directed edges, of which each vertex begins one at most."""
    following = {start: end for start, end in ends}
    loops = []
    while following:
        start, vertex = following.popitem()
        loop = [start]
        while vertex in following:
            loop.append(vertex)
            vertex = following.pop(vertex)
        if vertex == start:
            loops.append(loop)
    return loops


def _triangulated(positions: NDArray[Any], loop: Sequence[int]) -> NDArray[np.int64]:
    """Triangles over a rim, its edges in the order given: cut in the plane that it lies in best (Newell)."""
    centred = positions.astype(np.float64) - positions.mean(axis=0)
    normal = np.cross(centred, np.roll(centred, -1, axis=0)).sum(axis=0)
    length = np.linalg.norm(normal)
    normal = normal / length if length > 0 else np.array([0.0, 0.0, 1.0])
    right = np.cross(np.eye(3)[np.abs(normal).argmin()], normal)
    right /= np.linalg.norm(right)
    flat = np.stack([centred @ right, centred @ np.cross(normal, right)], axis=-1)
    corners = manifold3d.triangulate([flat], allow_convex=False)
    rows: NDArray[np.int64] = np.asarray(loop, dtype=np.int64)[corners]
    return rows

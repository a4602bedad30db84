"""Differentiable triangles of a level set in tetrahedra (Doi and Koide 1991; Shen et al. 2021, DMTet).

Plain PyTorch: beside finding the tetrahedra that the surface crosses, which is four gathers, there is little
to compute.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

Ring = list[tuple[int, int]]
"""Corners (inside, outside) of the edges that the surface crosses, in order around it."""

CORNERS = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
"""A positively oriented tetrahedron."""


def marching_tetrahedra(
    vertices: Float[Tensor, "V 3"], level: Float[Tensor, V], tets: Int[Tensor, "T 4"]
) -> tuple[Float[Tensor, "N 3"], Int[Tensor, "M 3"]]:
    """The surface `level = 0` of a field that is linear in each tetrahedron.

    A vertex of the surface lies on each edge from an inside corner a to an outside one b, at
    `(level_b x_a - level_a x_b) / (level_b - level_a)` (DMTet). It is differentiable with respect to
    `vertices` and `level`; which edges are crossed is not. Where tetrahedra meet face to face the surface is
    manifold, and it is closed unless it leaves the grid.

    Args:
        vertices: corners of the tetrahedra, any frame.
        level: negative inside; zero, and what is not a number, count as outside.
        tets: vertex indices, positively oriented; quickest when stored column by column, as `TetGrid` does.

    Returns:
        Vertices, one for each crossed edge, and faces, counter-clockwise seen from outside; both empty where
        no tetrahedron is crossed.
    """
    faces, inside, outside = crossed_edges(level, tets)
    return crossings(vertices, level, inside, outside), faces


def crossed_edges(
    level: Float[Tensor, V], tets: Int[Tensor, "T 4"]
) -> tuple[Int[Tensor, "M 3"], Int[Tensor, N], Int[Tensor, N]]:
    """Faces of the surface, and for each of its vertices the inside and the outside end of its edge."""
    corners, code = _crossed_tets(level, tets)
    inside, outside, count = (table.to(level.device) for table in ring_tables())
    keys = corners.gather(1, inside[code]) * len(level) + corners.gather(1, outside[code])
    three = count[code] == 3
    triangles, quads = keys[three, :3], keys[~three]
    edges, index = torch.unique(torch.cat([triangles.flatten(), quads.flatten()]), return_inverse=True)
    first, second = index.split([triangles.numel(), quads.numel()])
    faces = torch.cat([first.reshape(-1, 3), _halves(second.reshape(-1, 4))])
    return faces, edges // len(level), edges % len(level)


def crossed_vertices(level: Float[Tensor, V], tets: Int[Tensor, "T 4"]) -> Int[Tensor, K]:
    """The corners of the tetrahedra that the surface crosses, in order: all that the surface depends on."""
    needed = torch.zeros_like(level, dtype=torch.bool)
    needed[_crossed_tets(level, tets)[0].flatten()] = True
    return needed.nonzero()[:, 0]


def _crossed_tets(level: Tensor, tets: Tensor) -> tuple[Int[Tensor, "A 4"], Int[Tensor, A]]:
    """Corners of the tetrahedra with corners on both sides, and which are inside (bit k: corner k)."""
    inside = (level.detach() < 0).to(torch.uint8)
    code = torch.zeros(len(tets), dtype=torch.uint8, device=tets.device)
    for corner in range(4):
        code += inside.index_select(0, tets[:, corner]) << corner
    crossed = ((code > 0) & (code < 15)).nonzero()[:, 0]
    return tets[crossed], code[crossed].long()


def crossings(
    vertices: Float[Tensor, "V 3"], level: Float[Tensor, V], inside: Int[Tensor, N], outside: Int[Tensor, N]
) -> Float[Tensor, "N 3"]:
    """Where the level is zero on edges that have one end inside and one outside."""
    start, end = vertices.index_select(0, inside), vertices.index_select(0, outside)
    below, above = level.index_select(0, inside), level.index_select(0, outside)
    return start + (below / (below - above))[:, None] * (end - start)


def _halves(quads: Shaped[Tensor, "Q 4"]) -> Shaped[Tensor, "Q2 3"]:
    return torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


@lru_cache(maxsize=1)
def ring_tables() -> tuple[Int[Tensor, "16 4"], Int[Tensor, "16 4"], Int[Tensor, "16"]]:
    """For each case, the inside and the outside corners of its crossed edges in order, and their number."""
    rings = [_ring([k for k in range(4) if code >> k & 1]) for code in range(16)]
    padded = torch.tensor([ring + [(0, 0)] * (4 - len(ring)) for ring in rings])
    return padded[..., 0], padded[..., 1], torch.tensor([len(ring) for ring in rings])


def _ring(inside: list[int]) -> Ring:
    """The crossed edges when these corners are inside, counter-clockwise seen from outside."""
    outside = [k for k in range(4) if k not in inside]
    ring = [(i, o) for i in inside for o in outside]
    if len(ring) == 4:
        ring = [ring[0], ring[1], ring[3], ring[2]]
    return ring if not ring or _looks_out(ring, inside, outside) else ring[::-1]


def _looks_out(ring: Ring, inside: list[int], outside: list[int]) -> bool:
    corners = torch.tensor(CORNERS)
    middle = torch.stack([(corners[i] + corners[o]) / 2 for i, o in ring])
    normal = torch.linalg.cross(middle[1] - middle[0], middle[2] - middle[0])
    return float(torch.dot(normal, corners[outside].mean(dim=0) - corners[inside].mean(dim=0))) > 0

"""Tetrahedral grids of the unit cube, computed: a body-centred cubic lattice."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maquette.core.errors import ConfigError

CELLS_PER_RESOLUTION = 13 / 32
"""Cells along an axis for each of the resolution: about as many vertices as recipes of this field expect."""


@dataclass(frozen=True, eq=False)
class TetGrid:
    """Tetrahedra that fill the unit cube exactly, face to face."""

    vertices: Float[Tensor, "V 3"]
    """Positions in [0, 1]."""
    tets: Int[Tensor, "T 4"]
    """Vertex indices; the determinant of the edges from the first vertex is positive. Stored column by
    column, as they are searched."""

    @cached_property
    def border(self) -> Bool[Tensor, V]:
        """Whether a vertex is on the surface of the cube."""
        return ((self.vertices == 0.0) | (self.vertices == 1.0)).any(dim=1)


@lru_cache(maxsize=4)
def tet_grid(resolution: int) -> TetGrid:
    """The grid that a recipe calls by this resolution, on the CPU; made once and kept.

    A resolution of R has `round(13 R / 32)` cubes along an axis (at least two), as `lattice` divides them:
    5 000 vertices for 32, 37 000 for 64, 290 000 for 128. Edges are about 2.1 / R long.

    Raises:
        ConfigError: a resolution below 4.
    """
    if resolution < 4:
        raise ConfigError("system.geometry.isosurface_resolution", resolution, "an integer >= 4")
    return lattice(max(2, round(CELLS_PER_RESOLUTION * resolution)))


def lattice(n: int) -> TetGrid:
    """The body-centred cubic lattice of n cubes an axis, 12 n^3 tetrahedra of equal volume.

    Vertices are the corners and the centres of the cubes. Each edge of a square between two cubes makes a
    tetrahedron with both centres (all congruent: Sommerville's, see Senechal 1981, "Which tetrahedra fill
    space?"); a square on the surface of the unit cube is cut into two triangles, each with the centre behind
    it.
    """
    corners, centres = _nodes(n + 1), _nodes(n) + 0.5
    vertices = torch.cat([corners, centres]) / n
    tets = torch.cat([part for axis in range(3) for part in (_inner(n, axis), _outer(n, axis))])
    return TetGrid(vertices, _positive(vertices, tets))


def outside_at_border(level: Float[Tensor, V], border: Bool[Tensor, V]) -> Float[Tensor, V]:
    """The level with what touches the surface of the cube put outside, barely, so that the surface closes."""
    barely = 1e-3 * level.detach().abs().amax().clamp(min=1e-20)
    return torch.where(border, level.clamp(min=barely), level)


def _nodes(n: int) -> Float[Tensor, "N 3"]:
    axis = torch.arange(n, dtype=torch.float32)
    return torch.cartesian_prod(axis, axis, axis)


def _grid_index(nodes: Int[Tensor, "N 3"], n: int) -> Int[Tensor, N]:
    return (nodes[:, 0] * n + nodes[:, 1]) * n + nodes[:, 2]


def _squares(n: int, axis: int, layers: Int[Tensor, L]) -> Int[Tensor, "S 3"]:
    """The lowest corner of each square across `axis` in these layers of corners."""
    across = torch.arange(n)
    return torch.cartesian_prod(layers, across, across).roll(axis, dims=1)


def _rims(low: Int[Tensor, "S 3"], n: int, axis: int) -> Int[Tensor, "S 4"]:
    """The corners of squares, in order around them."""
    step = torch.eye(3, dtype=torch.int64)
    u, v = step[(axis + 1) % 3], step[(axis + 2) % 3]
    return torch.stack([_grid_index(low + move, n + 1) for move in (0 * u, u, u + v, v)], dim=1)


def _centres(cells: Int[Tensor, "S 3"], n: int) -> Int[Tensor, S]:
    return (n + 1) ** 3 + _grid_index(cells, n)


def _inner(n: int, axis: int) -> Int[Tensor, "T 4"]:
    """Four tetrahedra around each square between two cubes."""
    low = _squares(n, axis, torch.arange(1, n))
    before = low.clone()
    before[:, axis] -= 1
    rim, ends = _rims(low, n, axis), [_centres(before, n), _centres(low, n)]
    return torch.cat([torch.stack([*ends, rim[:, k], rim[:, (k + 1) % 4]], dim=1) for k in range(4)])


def _outer(n: int, axis: int) -> Int[Tensor, "T 4"]:
    """Two tetrahedra behind each square on the surface; the diagonals of neighbours are turned."""
    low = _squares(n, axis, torch.tensor([0, n]))
    cells = low.clamp(max=n - 1)
    rim, centre = _rims(low, n, axis), _centres(cells, n)
    turned = (cells.sum(dim=1) % 2 == 1)[:, None]
    rim = torch.where(turned, rim.roll(1, dims=1), rim)
    return torch.cat([torch.cat([centre[:, None], rim[:, half]], dim=1) for half in ([0, 1, 2], [0, 2, 3])])


def _positive(vertices: Float[Tensor, "V 3"], tets: Int[Tensor, "T 4"]) -> Int[Tensor, "T 4"]:
    """The tetrahedra with two corners exchanged where the determinant is negative."""
    p, q, r, s = vertices[tets].unbind(dim=1)
    negative = ((q - p) * torch.linalg.cross(r - p, s - p, dim=-1)).sum(dim=-1) < 0
    a, b, c, d = tets.unbind(dim=1)
    return torch.stack([a, b, torch.where(negative, d, c), torch.where(negative, c, d)]).T

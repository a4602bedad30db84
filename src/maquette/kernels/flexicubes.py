"""Differentiable surfaces on a regular grid with vertices inside the cells (Shen et al. 2023, FlexiCubes).

Dual marching cubes (Nielson 2004) whose vertices move: weights of corners and edges and offsets of grid nodes
are learned beside the level. Only cells that the surface crosses are touched.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.kernels.cube_tables import FACE_STATES, CubeTables, cube_tables, edge_corners, edge_index
from maquette.kernels.isosurface import outside_at_border

WEIGHTS = 21
"""Learned numbers of a cell: 8 for its corners (alpha), 12 for its edges (beta), 1 for its quads (gamma)."""
WEIGHT_RANGE = 0.99
"""Weights of corners and edges are within one plus or minus this."""

Surface = tuple[Float[Tensor, "N 3"], Int[Tensor, "M 3"], Float[Tensor, ""]]


def flexicubes(
    level: Float[Tensor, "X Y Z"],
    box: Float[Tensor, "2 3"],
    weights: Float[Tensor, "I J K 21"] | None = None,
    deformation: Float[Tensor, "X Y Z 3"] | None = None,
    centred: bool = False,
) -> Surface:
    """The surface `level = 0`: closed, manifold, counter-clockwise seen from outside.

    Each loop of crossed edges of a cell has a vertex, the mean of the crossings weighted by beta; a crossing
    is where alpha times level is zero. Around each crossed edge of the grid there is a quad.
    Two cells whose vertices would share two edges have their common face divided the other way (Wenger
    2013), so that the surface is manifold for any level. Nodes on the surface of the box count as
    outside. Differentiable with respect to level, weights and deformation.

    Args:
        level: at the nodes of a grid, negative inside.
        box: positions of the first and the last node.
        weights: alpha (8), beta (12) and gamma (1) of each cell before their activations, `1 + tanh` and
            `sigmoid`; without them, or zero, this is dual marching cubes.
        deformation: offsets of the nodes, in units of the box; less than half a cell keeps the surface sane.
        centred: divide each quad into four triangles around a middle that gamma blends, as for
            training; otherwise into two, along the diagonal with the greater gammas (the shorter one without
            weights).

    Returns:
        Vertices, faces, and the regulariser L_dev: the mean over vertices of how much their distances
        from their crossings differ; zero without a surface.

    Raises:
        ConfigError: fewer than two nodes along an axis, or weights or offsets of another grid.
    """
    _check(level, weights, deformation)
    level = outside_at_border(level)
    cells = _crossed_cells(level.detach() < 0)
    own = None if weights is None else weights.reshape(-1, WEIGHTS)[cells.index]
    corner, edge = (cells.loop >= 0).nonzero().unbind(dim=1)
    crossings = _crossings(level, deformation, box.to(level.dtype), cells, corner, edge, own)
    vertex = cells.first[corner] + cells.loop[corner, edge]
    share = torch.ones_like(crossings[:, 0]) if own is None else _bounded(own[:, 8:20])[corner, edge]
    vertices = _mean(crossings * share[:, None], share, vertex, cells.n_vertices)
    quads = _quads(level.detach() < 0, cells)
    gamma = None if own is None else torch.sigmoid(own[:, 20])[cells.cell_of_vertex()]
    vertices_out, faces = _centred(vertices, quads, gamma) if centred else _divided(vertices, quads, gamma)
    return vertices_out, faces, _deviation(crossings, vertices, vertex)


def grid_nodes(shape: tuple[int, ...] | torch.Size, box: Float[Tensor, "2 3"]) -> Float[Tensor, "X Y Z 3"]:
    """Positions of the nodes of a regular grid."""
    axes = [torch.linspace(0, 1, n, dtype=box.dtype, device=box.device) for n in shape]
    unit = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return box[0] + unit * (box[1] - box[0])


def crossed_edges(level: Float[Tensor, "X Y Z"]) -> tuple[Int[Tensor, E], Int[Tensor, E]]:
    """Flat indices of the inside and of the outside end of each edge of the grid that the surface crosses."""
    inside = level.detach() < 0
    number = torch.arange(inside.numel(), device=level.device).reshape(inside.shape)
    ends = []
    for axis in range(3):
        n = inside.shape[axis] - 1
        crossed = inside.narrow(axis, 0, n) != inside.narrow(axis, 1, n)
        ends.append(torch.stack([number.narrow(axis, k, n)[crossed] for k in range(2)]))
    low, high = torch.cat(ends, dim=1)
    first = inside.flatten()[low]
    return torch.where(first, low, high), torch.where(first, high, low)


def crossed_nodes(level: Float[Tensor, "X Y Z"]) -> Int[Tensor, K]:
    """Flat indices of the nodes at the ends of the edges that the surface crosses: all that it depends on."""
    needed = torch.zeros(level.numel(), dtype=torch.bool, device=level.device)
    for ends in crossed_edges(level):
        needed[ends] = True
    return needed.nonzero()[:, 0]


@dataclass(eq=False)
class _Cells:
    """The cells that the surface crosses."""

    place: Int[Tensor, "S 3"]
    index: Int[Tensor, S]
    """Flat index among all cells."""
    number: Int[Tensor, "I J K"]
    """Where a cell is in this list; -1 for the others."""
    loop: Int[Tensor, "S 12"]
    first: Int[Tensor, S]
    """The first vertex of a cell; it has one for each loop."""
    n_loops: Int[Tensor, S]
    n_vertices: int

    def cell_of_vertex(self) -> Int[Tensor, N]:
        return torch.repeat_interleave(torch.arange(len(self.first), device=self.first.device), self.n_loops)


def _crossed_cells(inside: Bool[Tensor, "X Y Z"]) -> _Cells:
    case = _cases(inside)
    place = ((case > 0) & (case < 255)).nonzero()
    flat = (place[:, 0] * case.shape[1] + place[:, 1]) * case.shape[2] + place[:, 2]
    number = torch.full(case.shape, -1, dtype=torch.int64, device=inside.device)
    number.view(-1)[flat] = torch.arange(len(flat), device=inside.device)
    tables = cube_tables(inside.device)
    state = case.view(-1)[flat].long() * FACE_STATES
    state = _without_double_edges(state, place, number, tables)
    n_loops = tables.n_loops[state]
    first = torch.cumsum(n_loops, dim=0) - n_loops
    return _Cells(place, flat, number, tables.loop[state], first, n_loops, int(n_loops.sum()))


def _cases(inside: Bool[Tensor, "X Y Z"]) -> Int[Tensor, "I J K"]:
    bits = inside.to(torch.uint8)
    x, y, z = (n - 1 for n in inside.shape)
    case = torch.zeros(x, y, z, dtype=torch.uint8, device=inside.device)
    for k in range(8):
        i, j, m = k & 1, k >> 1 & 1, k >> 2 & 1
        case += bits[i : i + x, j : j + y, m : m + z] << k
    return case


def _without_double_edges(state: Tensor, place: Tensor, number: Tensor, tables: CubeTables) -> Tensor:
    """States with those faces divided the other way at which both cells have one loop for both segments.

    The two vertices would share two quad edges. Dividing such a face otherwise cuts the loop of each cell in
    two; it never joins loops, so a face that was right stays right. A cell takes part once in each of the six
    rounds (by axis and by parity along it).
    """
    state = state.clone()
    candidates = (tables.alternating[state // FACE_STATES] > 0).nonzero()[:, 0]
    for axis in range(3):
        beyond = place[candidates] + torch.eye(3, dtype=torch.int64, device=place.device)[axis]
        exists = beyond[:, axis] < number.shape[axis]
        one, beyond = candidates[exists], beyond[exists]
        other = number[beyond[:, 0], beyond[:, 1], beyond[:, 2]]
        for parity in range(2):
            turn = (beyond[:, axis] % 2 == parity) & (other >= 0)
            a, b = one[turn], other[turn]
            double = tables.same[state[a], 2 * axis + 1] & tables.same[state[b], 2 * axis]
            state[a[double]] += 1 << (2 * axis + 1)
            state[b[double]] += 1 << (2 * axis)
    return state


def _crossings(
    level: Tensor,
    deformation: Tensor | None,
    box: Tensor,
    cells: _Cells,
    cell: Tensor,
    edge: Tensor,
    own: Tensor | None,
) -> Float[Tensor, "P 3"]:
    """Where the surface crosses edges of cells."""
    shape, device = level.shape, level.device
    strides = torch.tensor([shape[1] * shape[2], shape[2], 1], device=device)
    corner = torch.tensor([[k & 1, k >> 1 & 1, k >> 2 & 1] for k in range(8)], device=device)
    ends = torch.tensor(edge_corners(), device=device)
    node = (cells.place * strides).sum(dim=1)[cell] + (corner * strides).sum(dim=1)[ends].T[:, edge]
    below, above = level.reshape(-1)[node]
    if own is not None:
        alpha = _bounded(own[:, :8])[:, ends.T][cell, :, edge]
        below, above = below * alpha[:, 0], above * alpha[:, 1]
    step = (box[1] - box[0]) / (torch.tensor(shape, device=device) - 1)
    low = (box[0] + cells.place * step)[cell] + (corner * step)[ends[:, 0]][edge]
    along = ((corner[ends[:, 1]] - corner[ends[:, 0]]) * step)[edge]
    if deformation is not None:
        moves = deformation.reshape(-1, 3)[node]
        low, along = low + moves[0], along + moves[1] - moves[0]
    return low + (below / (below - above))[:, None] * along


def _bounded(raw: Tensor) -> Tensor:
    return 1.0 + WEIGHT_RANGE * torch.tanh(raw)


def _mean(weighted: Tensor, share: Tensor, vertex: Tensor, n: int) -> Tensor:
    total = weighted.new_zeros(n, 3).index_add(0, vertex, weighted)
    return total / share.new_zeros(n).index_add(0, vertex, share)[:, None]


def _deviation(crossings: Tensor, vertices: Tensor, vertex: Tensor) -> Tensor:
    """Mean over vertices of the mean absolute deviation of the distances to their crossings (L_dev)."""
    n, tiny = len(vertices), torch.finfo(crossings.dtype).tiny
    distance = ((crossings - vertices[vertex]).square().sum(dim=-1) + tiny).sqrt()
    count = distance.new_zeros(n).index_add(0, vertex, torch.ones_like(distance))
    mean = distance.new_zeros(n).index_add(0, vertex, distance) / count
    spread = distance.new_zeros(n).index_add(0, vertex, (distance - mean[vertex]).abs()) / count
    return spread.sum() / max(n, 1)


def _quads(inside: Bool[Tensor, "X Y Z"], cells: _Cells) -> Int[Tensor, "Q 4"]:
    """The four vertices around each crossed edge of the grid, counter-clockwise seen from outside."""
    quads = []
    for axis in range(3):
        low = inside.narrow(axis, 0, inside.shape[axis] - 1)
        crossed = (low != inside.narrow(axis, 1, inside.shape[axis] - 1)).nonzero()
        corners = []
        for back_next, back_after in ((1, 1), (0, 1), (0, 0), (1, 0)):
            place = crossed.clone()
            place[:, (axis + 1) % 3] -= back_next
            place[:, (axis + 2) % 3] -= back_after
            cell = cells.number[place[:, 0], place[:, 1], place[:, 2]]
            corners.append(cells.first[cell] + cells.loop[cell, edge_index(axis, back_next, back_after)])
        quad = torch.stack(corners, dim=1)
        outwards = low[crossed[:, 0], crossed[:, 1], crossed[:, 2]]
        quads.append(torch.where(outwards[:, None], quad, quad.flip(1)))
    return torch.cat(quads)


def _divided(vertices: Tensor, quads: Tensor, gamma: Tensor | None) -> tuple[Tensor, Tensor]:
    """Two triangles for each quad."""
    if gamma is None:
        a, b, c, d = vertices.detach()[quads].unbind(dim=1)
        first = (a - c).square().sum(dim=-1) <= (b - d).square().sum(dim=-1)
    else:
        a, b, c, d = gamma.detach()[quads].unbind(dim=1)
        first = a * c >= b * d
    turned = torch.where(first[:, None], quads, quads.roll(-1, dims=1))
    return vertices, torch.cat([turned[:, [0, 1, 2]], turned[:, [0, 2, 3]]])


def _centred(vertices: Tensor, quads: Tensor, gamma: Tensor | None) -> tuple[Tensor, Tensor]:
    """Four triangles for each quad, around the middles of its diagonals blended by their gammas."""
    corners = vertices[quads]
    first, second = corners[:, [0, 2]].mean(dim=1), corners[:, [1, 3]].mean(dim=1)
    if gamma is None:
        middle = (first + second) / 2
    else:
        a, b, c, d = gamma[quads].unbind(dim=1)
        middle = (first * (a * c)[:, None] + second * (b * d)[:, None]) / (a * c + b * d)[:, None]
    own = len(vertices) + torch.arange(len(quads), device=quads.device)
    sides = [torch.stack([quads[:, k], quads[:, (k + 1) % 4], own], dim=1) for k in range(4)]
    return torch.cat([vertices, middle]), torch.cat(sides)


def _check(level: Tensor, weights: Tensor | None, deformation: Tensor | None) -> None:
    shape = tuple(level.shape)
    if min(shape) < 2:
        raise ConfigError("flexicubes.level", shape, "at least two nodes along each axis")
    cells = (*(n - 1 for n in shape), WEIGHTS)
    if weights is not None and tuple(weights.shape) != cells:
        raise ConfigError("flexicubes.weights", tuple(weights.shape), f"the shape {cells}")
    if deformation is not None and tuple(deformation.shape) != (*shape, 3):
        raise ConfigError("flexicubes.deformation", tuple(deformation.shape), f"the shape {(*shape, 3)}")

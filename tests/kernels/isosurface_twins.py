"""Isosurfaces as their papers write them down, in plain PyTorch, of any float type."""

import itertools

import torch

TET_EDGES = list(itertools.combinations(range(4), 2))


def marching_tetrahedra(vertices, level, tets):
    """Shen et al. 2021 (DMTet), section 3: all edges of all tetrahedra, the crossed ones get a vertex."""
    inside = level < 0
    edges, index = torch.unique(
        tets[:, TET_EDGES].sort(dim=-1).values.reshape(-1, 2), dim=0, return_inverse=True
    )
    crossed = inside[edges[:, 0]] != inside[edges[:, 1]]
    place = torch.cumsum(crossed, 0) - 1
    a, b = edges[crossed].unbind(1)
    points = (level[b, None] * vertices[a] - level[a, None] * vertices[b]) / (level[b] - level[a])[:, None]
    faces = [part for part in _faces_by_case(inside[tets], place[index].reshape(-1, 6))]
    return points, _outwards(
        points, torch.cat([f for f, _ in faces]), tets[torch.cat([t for _, t in faces])], vertices, inside
    )


def _faces_by_case(inside, edge_points):
    for case in itertools.product([False, True], repeat=4):
        tets = (inside == torch.tensor(case)).all(dim=1).nonzero()[:, 0]
        ring = [k for k, (i, j) in enumerate(TET_EDGES) if case[i] != case[j]]
        if len(ring) == 3:
            yield edge_points[tets][:, ring], tets
        elif len(ring) == 4:  # two edges that share no corner are opposite
            for half in ([ring[0], ring[1], ring[2]], [ring[3], ring[1], ring[2]]):
                yield edge_points[tets][:, half], tets


def _outwards(points, faces, tets, vertices, inside):
    a, b, c = points.detach()[faces].unbind(1)
    corners, within = vertices.detach()[tets], inside[tets].to(vertices.dtype)[..., None]
    out = (corners * (1 - within)).sum(1) / (1 - within).sum(1) - (corners * within).sum(1) / within.sum(1)
    wrong = (torch.linalg.cross(b - a, c - a) * out).sum(1) < 0
    return torch.where(wrong[:, None], faces.flip(1), faces)


def dual_contour(level, box):
    """Shen et al. 2023 (FlexiCubes), without weights, where no cell has two loops: every cell of
    the grid gets the mean of its crossings, the empty ones none; each crossed edge of the grid gives a quad.
    """
    axes = [torch.linspace(0, 1, n, dtype=level.dtype) for n in level.shape]
    nodes = box[0] + torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) * (box[1] - box[0])
    inside, cells = level < 0, [n - 1 for n in level.shape]
    total, count = torch.zeros(*cells, 3, dtype=level.dtype), torch.zeros(*cells, 1, dtype=level.dtype)
    quads = []
    for axis in range(3):
        rotated = [t.movedim((axis, (axis + 1) % 3, (axis + 2) % 3), (0, 1, 2)) for t in (level, inside)]
        points = nodes.movedim((axis, (axis + 1) % 3, (axis + 2) % 3), (0, 1, 2))
        (a, b), crossed = (rotated[0][:-1], rotated[0][1:]), (rotated[1][:-1] != rotated[1][1:])[..., None]
        part = torch.where(crossed[..., 0], a / torch.where(crossed[..., 0], a - b, 1.0), 0.0)[..., None]
        where = torch.where(crossed, points[:-1] + part * (points[1:] - points[:-1]), 0.0)
        sums, counts = (_over_cells(t) for t in (where, crossed.to(level.dtype)))
        back = ((axis, (axis + 1) % 3, (axis + 2) % 3), (0, 1, 2))
        total, count = total + sums.movedim(back[1], back[0]), count + counts.movedim(back[1], back[0])
        quads.append(_quads_of(crossed[..., 0], rotated[1][:-1], axis))
    used = count[..., 0] > 0
    number = (torch.cumsum(used.flatten(), 0) - 1).reshape(cells)
    quads = torch.cat([number[tuple(q.unbind(-1))] for q in quads])
    faces = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return (total[used] / count[used]), faces


def _over_cells(edge_values):
    """Sums over the four edges along the first axis of each cell."""
    first = edge_values[:, :-1] + edge_values[:, 1:]
    return first[:, :, :-1] + first[:, :, 1:]


def _quads_of(crossed, low_inside, axis):
    """Cells around each crossed edge along `axis` (which comes first in the arguments), as indices x y z."""
    at = crossed.nonzero()
    around = torch.tensor([[0, -1, -1], [0, 0, -1], [0, 0, 0], [0, -1, 0]])
    quads = (at[:, None] + around).roll(axis, dims=-1)
    return torch.where(low_inside[tuple(at.unbind(1))][:, None, None], quads, quads.flip(1))

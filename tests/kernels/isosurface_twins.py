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


CORNERS = torch.tensor([[k & 1, k >> 1 & 1, k >> 2 & 1] for k in range(8)])
ENDS = [
    (low, low | 1 << axis)
    for axis in range(3)
    for low in ((j & 1) << (axis + 1) % 3 | (j >> 1) << (axis + 2) % 3 for j in range(4))
]
"""Lower and upper corner of each edge of a cell: four along each axis, in the order of the weights."""


def flexicubes(level, box, weights, deformation):
    """Shen et al. 2023 (FlexiCubes) where no cell has two loops: vertices, faces, L_dev.

    Every cell of the grid gets the weighted mean of its crossings, the empty ones none; each crossed edge of
    the grid gives a quad.
    """
    axes = [torch.linspace(0, 1, n, dtype=level.dtype) for n in level.shape]
    nodes = box[0] + torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) * (box[1] - box[0]) + deformation
    alpha, beta = (1 + 0.99 * torch.tanh(w) for w in weights[..., :20].split([8, 12], dim=-1))
    a, b = (corner_values(level)[..., [pair[k] for pair in ENDS]] for k in range(2))
    weighted = [v * alpha[..., [pair[k] for pair in ENDS]] for k, v in enumerate((a, b))]
    crossed = (a < 0) != (b < 0)
    slope = torch.where(crossed, weighted[0] - weighted[1], 1.0)
    low, high = (corner_values(nodes, 1)[..., [pair[k] for pair in ENDS], :] for k in range(2))
    points = low + (torch.where(crossed, weighted[0], 0.0) / slope)[..., None] * (high - low)
    share, count = torch.where(crossed, beta, 0.0), crossed.sum(-1)
    used = count > 0
    middle = (share[..., None] * points).sum(-2) / share.sum(-1).where(used, torch.ones(()))[..., None]
    distance = (points - middle[..., None, :]).square().sum(-1)
    distance = torch.where(crossed, torch.where(crossed, distance, 1.0).sqrt(), 0.0)
    spread = (distance - distance.sum(-1, keepdim=True) / count[..., None]).abs()
    deviation = (torch.where(crossed, spread, 0.0).sum(-1)[used] / count[used]).mean()
    number = (torch.cumsum(used.flatten(), 0) - 1).reshape(used.shape)
    quads = torch.cat(
        [number[tuple(q.unbind(-1))] for q in (quads_along(level < 0, axis) for axis in range(3))]
    )
    return middle[used], torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]), deviation


def corner_values(values, trailing=0):
    """Of the nodes at the eight corners of each cell."""
    x, y, z = (n - 1 for n in values.shape[:3])
    return torch.stack(
        [values[i : i + x, j : j + y, k : k + z] for i, j, k in CORNERS.tolist()], -1 - trailing
    )


def quads_along(inside, axis):
    """Cells (x y z) around each crossed edge along an axis."""
    turned = inside.movedim((axis, (axis + 1) % 3, (axis + 2) % 3), (0, 1, 2))
    at = (turned[:-1] != turned[1:]).nonzero()
    around = torch.tensor([[0, -1, -1], [0, 0, -1], [0, 0, 0], [0, -1, 0]])
    quads = (at[:, None] + around).roll(axis, dims=-1)
    return torch.where(turned[:-1][tuple(at.unbind(1))][:, None, None], quads, quads.flip(1))

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

"""Cases of distances: between clouds of points, and to meshes."""

import math

import torch
from distance_twins import chamfer as chamfer_twin
from distance_twins import forward_backward, signed_distance, winding_number
from distance_twins import nearest as nearest_twin
from measure import Case
from torch import Tensor

from maquette.kernels.mesh_distance import MeshDistance
from maquette.kernels.nearest import chamfer, nearest


def cases(repeats_scale: float) -> list[Case]:
    """Clouds of 4 096 and more points on spheres, and a sphere of triangles."""
    points = max(64, int(4096 * repeats_scale))
    return [
        nearest_points(points),
        nearest_points(4 * points),
        chamfer_distance(points),
        to_mesh(points, rings=16),
        winding(points, rings=16),
    ]


def nearest_points(n: int) -> Case:
    a, b = cloud(n, 0).requires_grad_(), cloud(n, 1).requires_grad_()
    return Case(
        name=f"nearest of {n:,} to {n:,} points",
        pairs=n * n,
        kernel=forward_backward(lambda: nearest(a, b)[0], [a, b]),
        twin=forward_backward(lambda: nearest_twin(a, b)[0], [a, b]),
    )


def chamfer_distance(n: int) -> Case:
    a, b = cloud(n, 0).requires_grad_(), cloud(n, 1).requires_grad_()
    return Case(
        name=f"chamfer, {n:,} points",
        pairs=2 * n * n,
        kernel=forward_backward(lambda: chamfer(a, b), [a, b]),
        twin=forward_backward(lambda: chamfer_twin(a, b), [a, b]),
    )


def to_mesh(n: int, rings: int) -> Case:
    points, (vertices, faces) = (1.5 * cloud(n, 0)).requires_grad_(), sphere(rings)
    mesh = MeshDistance(vertices, faces)
    return Case(
        name=f"signed distance to {len(faces):,} faces",
        pairs=n * len(faces),
        kernel=forward_backward(lambda: mesh.signed(points), [points]),
        twin=forward_backward(lambda: signed_distance(points, vertices, faces), [points]),
    )


def winding(n: int, rings: int) -> Case:
    """No gradient: it is one where it is not zero."""
    points, (vertices, faces) = 1.5 * cloud(n, 0), sphere(rings)
    mesh = MeshDistance(vertices, faces)
    return Case(
        name=f"winding number, {len(faces):,} faces",
        pairs=n * len(faces),
        kernel=lambda: mesh.winding_number(points),
        twin=lambda: winding_number(points, vertices, faces),
    )


def cloud(n: int, seed: int) -> Tensor:
    """Points near a sphere of radius one."""
    torch.manual_seed(seed)
    points = torch.nn.functional.normalize(torch.randn(n, 3), dim=-1)
    return points * (1.0 + 0.05 * torch.randn(n, 1))


def sphere(rings: int) -> tuple[Tensor, Tensor]:
    """A sphere of `rings` times twice as many quadrangles, each cut in two."""
    polar, around = torch.linspace(0.0, math.pi, rings + 1), torch.arange(2 * rings) * (math.pi / rings)
    ring, spoke = torch.meshgrid(polar, around, indexing="ij")
    flat = torch.sin(ring)
    vertices = torch.stack([flat * torch.cos(spoke), flat * torch.sin(spoke), torch.cos(ring)], -1)
    row, column = torch.meshgrid(torch.arange(rings), torch.arange(2 * rings), indexing="ij")
    beside = (column + 1) % (2 * rings)
    a, b = row * 2 * rings + column, row * 2 * rings + beside
    c, d = a + 2 * rings, b + 2 * rings
    faces = torch.stack([torch.stack([a, c, b], -1), torch.stack([b, c, d], -1)], 2).reshape(-1, 3)
    vertices = vertices.reshape(-1, 3)
    p, q, r = vertices[faces].unbind(1)
    area = torch.linalg.cross(q - p, r - p, dim=-1).norm(dim=-1)
    return vertices, faces[area > 1e-8]

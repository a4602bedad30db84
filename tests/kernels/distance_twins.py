"""Distances in plain PyTorch: every pair is looked at, in the precision of the inputs, in chunks."""

from collections.abc import Callable

import torch
from torch import Tensor

PAIRS = 2**22
"""Pairs at once."""


def nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance to the nearest point of `b`, and its index."""
    with torch.no_grad():
        index = torch.cat([(part[:, None] - b).square().sum(-1).argmin(1) for part in chunks(a, len(b))])
    return (a - b[index]).square().sum(-1), index


def chamfer(a: Tensor, b: Tensor) -> Tensor:
    """Mean distance of both directions."""
    return 0.5 * (nearest(a, b)[0].sqrt().mean() + nearest(b, a)[0].sqrt().mean())


def mesh_distance(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """Distance to the nearest triangle: to its plane where that falls inside, else to an edge."""
    with torch.no_grad():
        corners = vertices[faces]
        parts = chunks(points, 8 * len(faces))
        face = torch.cat([_to_triangles(part, corners[None]).argmin(1) for part in parts])
    return _to_triangles(points, vertices[faces[face]][:, None])[:, 0]


def winding_number(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """Sum of solid angles over 4 pi (Van Oosterom and Strackee 1983)."""
    corners = vertices[faces]
    return torch.cat([_solid_angles(part, corners) for part in chunks(points, 8 * len(faces))])


def signed_distance(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """Negative where the winding number is above one half."""
    distance = mesh_distance(points, vertices, faces)
    return torch.where(winding_number(points, vertices, faces) > 0.5, -distance, distance)


def chunks(rows: Tensor, others: int) -> tuple[Tensor, ...]:
    """Parts of `rows` that make at most PAIRS pairs with `others`."""
    return rows.split(max(1, PAIRS // max(1, others)))


def forward_backward(function: Callable[[], Tensor], inputs: list[Tensor]) -> Callable[[], None]:
    """A call that also differentiates the sum of what it gives."""

    def run() -> None:
        torch.autograd.grad(function().sum(), inputs)

    return run


def _to_triangles(points: Tensor, corners: Tensor) -> Tensor:
    """(N, F) distances of points (N, 3) to triangles (1 or N, F, 3, 3)."""
    points = points[:, None]
    a, b, c = corners.unbind(-2)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a, dim=-1), dim=-1)
    height = ((points - a) * normal).sum(-1)
    foot = points - height[..., None] * normal
    within = torch.ones_like(height, dtype=torch.bool)
    edges = torch.full_like(height, torch.inf)
    for p, q in ((a, b), (b, c), (c, a)):
        side = torch.linalg.cross((q - p).expand_as(foot), foot - p, dim=-1)
        within &= (side * normal).sum(-1) >= 0
        along = (((points - p) * (q - p)).sum(-1) / (q - p).square().sum(-1)).clamp(0.0, 1.0)
        edges = torch.minimum(edges, (points - p - along[..., None] * (q - p)).norm(dim=-1))
    return torch.where(within, height.abs(), edges)


def _solid_angles(points: Tensor, corners: Tensor) -> Tensor:
    a, b, c = (corners[:, k] - points[:, None] for k in range(3))
    la, lb, lc = a.norm(dim=-1), b.norm(dim=-1), c.norm(dim=-1)
    volume = (a * torch.linalg.cross(b, c, dim=-1)).sum(-1)
    base = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return torch.atan2(volume, base).sum(1) / (2.0 * torch.pi)

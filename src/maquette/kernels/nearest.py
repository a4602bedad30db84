"""Nearest neighbours between clouds of points, and the distances made of them.

The points that are searched are sorted along a Morton curve (Morton 1966) and cut into leaves of equal size;
boxes around them form a complete binary tree (Karras 2012, "Maximizing parallelism in the construction of
BVHs", in its simplest form), which each query descends on its own, nearer child first, without a stack.
"""

# mypy: disable-error-code="index"
# (bodies of kernels are Warp's language)

from dataclasses import dataclass

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.kernels.launch import MODULE_OPTIONS, array, launch_rows

wp.set_module_options(MODULE_OPTIONS)

LEAF = 8
"""Points in a leaf."""
BITS = 20
"""Of a Morton code, per axis."""


def nearest(
    a: Float[Tensor, "N 3"], b: Float[Tensor, "M 3"]
) -> tuple[Float[Tensor, " N"], Int[Tensor, " N"]]:
    """For each point of `a` the squared distance to its nearest point of `b`, and which that is (int64).

    The search is exact in float32. The squared distance is differentiable with respect to both clouds, the
    choice being held fixed. Among points equally near any one may be chosen.

    Raises:
        ConfigError: `b` is empty, or a point is not finite.
    """
    _check("a", a)
    _check("b", b)
    if len(b) == 0:
        raise ConfigError("nearest.b", tuple(b.shape), "at least one point to be near to")
    index = _search(a, _tree(b))
    return (a - b[index]).square().sum(-1), index


def chamfer(a: Float[Tensor, "N 3"], b: Float[Tensor, "M 3"]) -> Float[Tensor, ""]:
    """Mean distance (not squared) of each cloud's points to the other cloud, averaged over both directions.

    Differentiable with respect to both; the slope of a distance of zero is taken as zero.

    Raises:
        ConfigError: a cloud is empty, or a point is not finite.
    """
    if len(a) == 0:
        raise ConfigError("chamfer.a", tuple(a.shape), "at least one point")
    return 0.5 * (_length(nearest(a, b)[0]).mean() + _length(nearest(b, a)[0]).mean())


def f_score(a: Float[Tensor, "N 3"], b: Float[Tensor, "M 3"], tolerance: float) -> float:
    """Harmonic mean of how much of `a` lies within `tolerance` of `b`, and of `b` of `a`; 1 is best.

    Knapitsch et al. 2017, "Tanks and Temples", eq. 5.

    Raises:
        ConfigError: a cloud is empty, a point is not finite, or `tolerance` is negative.
    """
    if not tolerance >= 0.0:
        raise ConfigError("f_score.tolerance", tolerance, "a distance >= 0")
    if len(a) == 0:
        raise ConfigError("f_score.a", tuple(a.shape), "at least one point")
    precision, recall = (
        float((nearest(one.detach(), other.detach())[0].sqrt() <= tolerance).double().mean())
        for one, other in ((a, b), (b, a))
    )
    total = precision + recall
    return 2.0 * precision * recall / total if total > 0.0 else 0.0


@dataclass(frozen=True)
class _Tree:
    """Heap of boxes: node i has the children 2i and 2i + 1, the root is 1, the leaves are the last half."""

    points: Float[Tensor, "P 3"]
    """In the order of the leaves."""
    order: Int[Tensor, " P"]
    """Where each point stands in the cloud as it was given (int32)."""
    lower: Float[Tensor, "K 3"]
    upper: Float[Tensor, "K 3"]

    @property
    def leaves(self) -> int:
        return len(self.lower) // 2


@torch.no_grad()
def _tree(points: Tensor) -> _Tree:
    points = points.detach().float()
    order = _morton(points).argsort()
    points = points[order].contiguous()
    leaves = 1 << max(0, (-(-len(points) // LEAF) - 1).bit_length())
    lower, upper = (_leaf_bounds(points, leaves, sign) for sign in (1.0, -1.0))
    return _Tree(points, order.int(), _heap(lower), -_heap(-upper))


def _leaf_bounds(points: Tensor, leaves: int, sign: float) -> Tensor:
    """Least coordinates of each leaf (`sign` 1) or largest (-1); a leaf without points has an empty box."""
    padded = points.new_full((leaves * LEAF, 3), torch.inf)
    padded[: len(points)] = sign * points
    return sign * padded.reshape(leaves, LEAF, 3).amin(1)


def _heap(leaves: Tensor) -> Tensor:
    """Minima over the subtree of every node, entry 0 unused."""
    levels = [leaves]
    while len(levels[-1]) > 1:
        levels.append(levels[-1].reshape(-1, 2, 3).amin(1))
    return torch.cat([leaves[:1], *reversed(levels)]).contiguous()


def _morton(points: Tensor) -> Tensor:
    """Position of each point on a curve through 2^BITS cells an axis (int64)."""
    low = points.amin(0)
    extent = (points.amax(0) - low).amax().clamp(min=torch.finfo(points.dtype).tiny)
    cell = ((points - low) / extent * (2**BITS - 1)).long()
    # Bits are moved apart in five doublings (Anderson, "Bit twiddling hacks", interleaving).
    for shift, mask in _SPREAD:
        cell = (cell | (cell << shift)) & mask
    x, y, z = cell.unbind(-1)
    return x | (y << 1) | (z << 2)


_SPREAD = (
    (32, 0x1F00000000FFFF),
    (16, 0x1F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)


def _search(a: Tensor, tree: _Tree) -> Tensor:
    """Index of the nearest point; neighbours are asked one after the other, for they need the same boxes."""
    if len(a) == 0:
        return torch.zeros(0, dtype=torch.int64, device=a.device)
    queries = a.detach().float()
    asked = _morton(queries).argsort()
    found = torch.empty(len(a), dtype=torch.int64, device=a.device)
    args = [
        array(queries[asked], wp.vec3),
        array(tree.points, wp.vec3),
        array(tree.order),
        array(tree.lower, wp.vec3),
        array(tree.upper, wp.vec3),
        tree.leaves,
        array(found),
    ]
    launch_rows(_nearest, len(a), args, a.device)
    return torch.empty_like(found).index_copy_(0, asked, found)


def _length(squared: Tensor) -> Tensor:
    """Square root whose slope at zero is zero."""
    safe = torch.where(squared > 0.0, squared, torch.ones_like(squared))
    return torch.where(squared > 0.0, safe.sqrt(), torch.zeros_like(squared))


def _check(name: str, points: Tensor) -> None:
    if points.ndim != 2 or points.shape[1] != 3:
        raise ConfigError(f"nearest.{name}", tuple(points.shape), "points (N, 3)")
    if not bool(torch.isfinite(points).all()):
        raise ConfigError(f"nearest.{name}", "points that are not finite", "finite coordinates")


@wp.func
def _outside(point: wp.vec3, lower: wp.vec3, upper: wp.vec3) -> wp.float32:
    """Squared distance to a box."""
    zero = wp.vec3(0.0, 0.0, 0.0)
    gap = wp.max(wp.max(lower - point, point - upper), zero)
    return wp.dot(gap, gap)


@wp.kernel
def _nearest(
    first: wp.int32,
    queries: wp.array[wp.vec3],
    points: wp.array[wp.vec3],
    order: wp.array[wp.int32],
    lower: wp.array[wp.vec3],
    upper: wp.array[wp.vec3],
    leaves: wp.int32,
    out: wp.array[wp.int64],
) -> None:
    i = first + wp.tid()
    query = queries[i]
    best = wp.float32(3.0e38)
    found = wp.int32(0)
    node = wp.int32(1)
    # Bit k: at k levels above the leaf's, the sibling was seen too.
    trail = wp.int32(0)
    while node > 0:
        near = wp.bool(True)
        while near and node < leaves:
            left = _outside(query, lower[2 * node], upper[2 * node])
            right = _outside(query, lower[2 * node + 1], upper[2 * node + 1])
            near = wp.min(left, right) < best
            if near:
                node = wp.where(left <= right, 2 * node, 2 * node + 1)
                trail = trail << 1
        if near:
            begin = (node - leaves) * LEAF
            for k in range(begin, wp.min(begin + LEAF, points.shape[0])):
                gap = query - points[k]
                distance = wp.dot(gap, gap)
                if distance < best:
                    best = distance
                    found = k
        climbing = wp.bool(True)
        while climbing:
            while (trail & 1) == 1:
                trail = trail >> 1
                node = node >> 1
            if node <= 1:
                node = wp.int32(0)
                climbing = wp.bool(False)
            else:
                node = node ^ 1
                trail = trail | 1
                climbing = _outside(query, lower[node], upper[node]) >= best
    out[i] = wp.int64(order[found])

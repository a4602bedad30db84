"""Volume rendering on dense rays (the same number of samples on each), and the space a field lives in."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LEVEL_FRACTION = 1 / 3
"""Of the density that is seen; less keeps thin and noisy shells closed, more keeps soft bodies slim."""


def alpha_composite(sigma: Float[Tensor, "R S"], delta: Float[Tensor, "R S"]) -> Float[Tensor, "R S"]:
    """Compositing weights along each ray; rows sum to the ray's opacity (Mildenhall et al. 2020, eq. 3)."""
    tau = sigma * delta
    before = torch.cumsum(tau, dim=-1) - tau
    return torch.exp(-before) * -torch.expm1(-tau)


def optical_opacity(sigma: Float[Tensor, "*N"], length: float) -> Float[Tensor, "*N"]:
    """Opacity of a homogeneous medium, `1 - exp(-sigma length)` (Beer-Lambert)."""
    return -torch.expm1(-sigma * length)


def scale_to_unit(points: Float[Tensor, "*N 3"], box: Float[Tensor, "2 3"]) -> Float[Tensor, "*N 3"]:
    """Points of a box (lower, upper corner) in [0, 1]."""
    return (points - box[0]) / (box[1] - box[0])


def contract(
    points: Float[Tensor, "*N 3"], box: Float[Tensor, "2 3"], unbounded: bool = False
) -> Float[Tensor, "*N 3"]:
    """World points in [0, 1], where an encoding can read them.

    Bounded: the box fills the unit cube. Unbounded: the box fills its middle, everything outside is drawn
    in by `x -> (2 - 1/|x|) x/|x|` (Barron et al. 2022, Mip-NeRF 360, eq. 10).
    """
    unit = scale_to_unit(points, box)
    if not unbounded:
        return unit
    centred = unit * 2.0 - 1.0
    length = centred.norm(dim=-1, keepdim=True).clamp(min=1e-9)
    drawn_in = torch.where(length > 1.0, (2.0 - 1.0 / length) * (centred / length), centred)
    return drawn_in / 4.0 + 0.5


def stratified_edges(
    near: Float[Tensor, "R"], far: Float[Tensor, "R"], n: int, jitter: Float[Tensor, "R"] | None = None
) -> Float[Tensor, "R E"]:
    """Edges of n equal intervals from near to far; `jitter` in [0, 1) moves the inner ones by part of one."""
    steps = torch.linspace(0.0, 1.0, n + 1, dtype=near.dtype, device=near.device).expand(len(near), -1)
    if jitter is not None:
        moved = steps[:, 1:-1] + (jitter[:, None] - 0.5) / n
        steps = torch.cat([steps[:, :1], moved, steps[:, -1:]], dim=-1)
    return near[:, None] + (far - near)[:, None] * steps


def near_border(inside: Bool[Tensor, "X Y Z"], reach: int) -> Bool[Tensor, "X Y Z"]:
    """Nodes of a grid that have both kinds of nodes within `reach` nodes along each axis."""
    return _grown(inside, reach) & _grown(~inside, reach)


def _grown(marked: Bool[Tensor, "X Y Z"], reach: int) -> Bool[Tensor, "X Y Z"]:
    for axis in range(3):
        lines = marked.movedim(axis, 0)
        grown = lines.clone()
        for step in range(1, min(reach, len(lines) - 1) + 1):
            grown[step:] |= lines[:-step]
            grown[:-step] |= lines[step:]
        marked = grown.movedim(0, axis)
    return marked


def visible_level(density: Float[Tensor, "X Y Z"], cell: float) -> tuple[float, float]:
    """The density at the surface that a picture of the volume shows, and the volume's largest opacity.

    Along the six axis directions, each line that is at least half opaque has a largest density up to one node
    behind that where half of the light is gone (which may lie on the rise, if a border is as thin as a cell).
    The level is a third of the median of these: the edge of a body with a sharp border, and for a soft one a
    surface between its depth seen frontally and its outline. If no line is half opaque, the level is a third
    of the largest density.

    Args:
        density: samples of the field at the nodes of a regular grid.
        cell: distance between nodes, world units.
    """
    lines = [density.movedim(axis, 0).flatten(start_dim=1) for axis in range(3)]
    opacity = max(float(optical_opacity(line.sum(dim=0) * cell, 1.0).max()) for line in lines)
    peaks = torch.cat([_visible_peaks(line, cell) for one in lines for line in (one, one.flip(0))])
    reference = peaks.median() if len(peaks) else density.max()
    return LEVEL_FRACTION * float(reference), opacity


def _visible_peaks(lines: Float[Tensor, "X L"], cell: float) -> Float[Tensor, "K"]:
    """The largest density until half of the light is gone, for lines (along dim 0) where that happens."""
    depth = torch.cumsum(lines * cell, dim=0)
    half = math.log(2.0)
    lines, depth = lines[:, depth[-1] >= half], depth[:, depth[-1] >= half]
    passed = torch.cat([torch.zeros_like(depth[:2]), depth[:-2]])[: len(depth)]
    return torch.where(passed < half, lines, torch.zeros_like(lines)).amax(dim=0)

"""Volume rendering on dense rays (the same number of samples on each), and the space a field lives in."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


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


def silhouette_level(density: Float[Tensor, "X Y Z"], cell: float) -> tuple[float, float]:
    """The density whose isosurface has the silhouette of the rendered volume, and the volume's largest
    opacity.

    Along the three axes, a line of cells belongs to the picture if its opacity is at least one half, and
    to the isosurface of level L if its largest density exceeds L. The level with the fewest lines in
    disagreement is returned, in the middle of its plateau; a volume with a sharp edge gives half of its
    inner density. If no line is half opaque the level is half of the largest density.

    Args:
        density: samples of the field at the nodes of a regular grid.
        cell: distance between nodes, world units.
    """
    peaks, opacity = _axis_profiles(density, cell)
    if not torch.any(opacity >= 0.5):
        return 0.5 * float(peaks.max()), float(opacity.max())
    ordered, order = torch.sort(peaks)
    solid = (opacity[order] >= 0.5).to(torch.int64)
    missed = torch.cumsum(solid, dim=0)
    added = (1 - solid).sum() - torch.cumsum(1 - solid, dim=0)
    errors = torch.cat([added.new_tensor([int((1 - solid).sum())]), missed + added])
    levels = torch.cat([ordered.new_zeros(1), ordered])
    cut = int(torch.argmin(errors[:-1]))
    return 0.5 * float(levels[cut] + levels[cut + 1]), float(opacity.max())


def _axis_profiles(density: Tensor, cell: float) -> tuple[Tensor, Tensor]:
    peaks = torch.cat([density.amax(dim=axis).reshape(-1) for axis in range(3)])
    depth = torch.cat([density.sum(dim=axis).reshape(-1) for axis in range(3)]) * cell
    return peaks, optical_opacity(depth, 1.0)

"""Rays and the samples on them.

Samples of many rays lie packed in one row of S entries, ray by ray; `packed` (R, 2) holds the first sample
and the number of samples of each ray.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def intersect_box(
    rays_o: Float[Tensor, "R 3"], rays_d: Float[Tensor, "R 3"], box: Float[Tensor, "2 3"]
) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
    """Entry and exit of rays through an axis-aligned box, in lengths of the direction (Kay and Kajiya 1986).

    A ray misses the box where exit <= entry. Entries are never negative.
    """
    tiny = torch.finfo(rays_d.dtype).tiny ** 0.5
    inverse = 1.0 / torch.where(rays_d.abs() < tiny, torch.full_like(rays_d, tiny), rays_d)
    a, b = (box[0] - rays_o) * inverse, (box[1] - rays_o) * inverse
    entry = torch.minimum(a, b).amax(dim=-1).clamp(min=0.0)
    return entry, torch.maximum(a, b).amin(dim=-1)


def pack(ray_indices: Int[Tensor, "S"], n_rays: int) -> Int[Tensor, "R 2"]:
    """First sample and number of samples of each ray, from the sorted ray of each sample (int32)."""
    return pack_counts(torch.bincount(ray_indices, minlength=n_rays))


def pack_counts(counts: Int[Tensor, "R"]) -> Int[Tensor, "R 2"]:
    """First sample and number of samples of each ray, from the numbers alone (int32)."""
    counts = counts.long()
    return torch.stack([torch.cumsum(counts, dim=0) - counts, counts], dim=-1).to(torch.int32)


def exclusive_sum(
    values: Float[Tensor, "S"], packed: Int[Tensor, "R 2"], ray_indices: Int[Tensor, "S"]
) -> Float[Tensor, "S"]:
    """For each sample, the sum of the values before it on its ray (summed in float64)."""
    if values.numel() == 0:
        return values
    total = torch.cumsum(values.double(), dim=0) - values
    first = packed[:, 0].long().clamp(max=values.numel() - 1)
    return (total - total[first][ray_indices]).clamp(min=0.0).to(values.dtype)


def visible_samples(
    sigma: Float[Tensor, "S"],
    delta: Float[Tensor, "S"],
    packed: Int[Tensor, "R 2"],
    ray_indices: Int[Tensor, "S"],
    alpha_threshold: float,
    early_stop_eps: float,
) -> Bool[Tensor, "S"]:
    """Samples that can contribute: neither more transparent than the threshold nor hidden behind others."""
    tau = sigma * delta
    transmittance = torch.exp(-exclusive_sum(tau, packed, ray_indices))
    return (-torch.expm1(-tau) >= alpha_threshold) & (transmittance >= early_stop_eps)

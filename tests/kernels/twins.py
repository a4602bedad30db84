"""The kernels again in plain PyTorch, as they stand in the papers: slow, in any precision, for comparison."""

import torch
from torch import Tensor

from maquette.kernels.hash_grid import HashGridSpec

CORNERS = torch.tensor([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)])
PRIMES = (1, 2654435761, 805459861)


def hash_encode(x: Tensor, table: Tensor, spec: HashGridSpec, active_levels: int | None = None) -> Tensor:
    """Instant-NGP, section 3: eight corners, eq. 4, trilinear interpolation, level by level."""
    active = spec.n_levels if active_levels is None else active_levels
    features = [_encode_level(x, table, spec, level) for level in range(active)]
    features += [x.new_zeros(len(x), spec.n_features)] * (spec.n_levels - active)
    return torch.cat(features, -1)


def _encode_level(x: Tensor, table: Tensor, spec: HashGridSpec, level: int) -> Tensor:
    side, rows = spec.resolutions[level], 2**spec.log2_hashmap_size
    cell = (x.detach() * side).long().clamp(0, side - 1)
    fraction = (x * side - cell).clamp(0.0, 1.0)
    corners = cell[:, None] + CORNERS
    if (side + 1) ** 3 <= rows:
        index = corners @ torch.tensor([1, side + 1, (side + 1) ** 2])
    else:
        a, b, c = (corners * torch.tensor(PRIMES)).unbind(-1)
        index = (a ^ b ^ c) % rows
    weights = torch.where(CORNERS.bool(), fraction[:, None], 1.0 - fraction[:, None]).prod(-1)
    return (weights[..., None] * table[spec.offsets[level] + index]).sum(1)


def composite(
    sigma: Tensor, values: Tensor, t_starts: Tensor, t_ends: Tensor, packed: Tensor, early_stop_eps: float = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """NeRF eq. 3, ray by ray."""
    rows = [_ray(sigma, values, t_starts, t_ends, *ray, early_stop_eps) for ray in packed.tolist()]
    blended, opacity, depth, weights = zip(*rows, strict=True)
    return torch.stack(blended), torch.stack(opacity), torch.stack(depth), torch.cat(weights)


def _ray(
    sigma: Tensor, values: Tensor, t_starts: Tensor, t_ends: Tensor, first: int, count: int, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    run = slice(first, first + count)
    thickness = sigma[run] * (t_ends[run] - t_starts[run])
    light = torch.exp(-(thickness.cumsum(0) - thickness))
    weights = torch.where(light >= eps, light * -torch.expm1(-thickness), 0.0)
    middles = 0.5 * (t_starts[run] + t_ends[run])
    return weights @ values[run], weights.sum(), weights @ middles, weights


def march_ray(
    origin: Tensor, direction: Tensor, binaries: Tensor, aabb: Tensor, step: float, near: float, far: float
) -> list[tuple[float, float]]:
    """Every interval of the lattice in the box is looked at, none is jumped over (float64)."""
    low, high = aabb[:3].double(), aabb[3:].double()
    origin, direction = origin.double(), direction.double()
    a, b = (low - origin) / direction, (high - origin) / direction
    start = max(torch.minimum(a, b).max().item(), near)
    stop = min(torch.maximum(a, b).min().item(), far)
    side = torch.tensor(binaries.shape)
    kept, k = [], 0
    while start + (k + 0.5) * step < stop:
        cell = (origin + (start + (k + 0.5) * step) * direction - low) / (high - low) * side
        if binaries[tuple(cell.long().clamp(torch.zeros(3).long(), side - 1).tolist())]:
            kept.append((start + k * step, start + (k + 1) * step))
        k += 1
    return kept


def resample(bins: Tensor, weights: Tensor, n: int) -> Tensor:
    """Inverse transform sampling through `searchsorted`, at the middle of each stratum."""
    mass = weights.double() + 1e-5
    cdf = torch.cat([torch.zeros_like(mass[:, :1]), mass.cumsum(-1)], -1) / mass.sum(-1, keepdim=True)
    u = ((torch.arange(n + 1, dtype=torch.float64) + 0.5) / (n + 1)).expand(len(bins), -1).contiguous()
    right = torch.searchsorted(cdf, u).clamp(1, weights.shape[1])
    below, above = cdf.gather(1, right - 1), cdf.gather(1, right)
    left_edge, right_edge = bins.double().gather(1, right - 1), bins.double().gather(1, right)
    return left_edge + (u - below) / (above - below) * (right_edge - left_edge)

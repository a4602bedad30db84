"""Cases of the kernels of volumes: hash grid, march through the occupancy grid, compositing, resampling."""

import torch
from hash_grid import FlatTwin
from measure import Case
from torch import Tensor
from volume_rendering import AABB, STEP, ball, camera_rays, dense_samples

from maquette.kernels.composite import composite, importance_resample
from maquette.kernels.hash_grid import HashGridSpec, hash_encode
from maquette.kernels.occupancy import RaySamples, march_rays


def cases(repeats_scale: float) -> list[Case]:
    """Sizes as in a step of first-light."""
    side = max(4, int(64 * repeats_scale**0.5))
    origins, directions = camera_rays(side, side)
    samples = march_rays(origins, directions, ball(32, 0.5), AABB, STEP)
    return [
        hash_grid(max(64, int(32768 * repeats_scale))),
        march(origins, directions),
        compositing(samples, side * side),
        resampling(side * side),
    ]


def hash_grid(points: int) -> Case:
    """Twin: all levels and corners at once through one `index_select`."""
    spec = HashGridSpec()
    torch.manual_seed(0)
    x, table = torch.rand(points, 3), torch.rand(spec.n_rows, spec.n_features).sub_(0.5).requires_grad_()
    twin = FlatTwin(spec)

    def train(features: Tensor) -> None:
        torch.autograd.grad(features, table, torch.ones_like(features))

    moved = points * spec.n_levels * 8 * spec.n_features * 4 * 3
    return Case(
        name="hash grid, 16 levels",
        pairs=points * spec.n_levels,
        kernel=lambda: train(hash_encode(x, table, spec)),
        twin=lambda: train(twin(x, table)),
        bytes=moved,
    )


def march(origins: Tensor, directions: Tensor) -> Case:
    """Twin: every step of every ray is looked up, then the empty ones are dropped. No gradient."""
    grid = ball(32, 0.5)
    return Case(
        name="march rays, 9 % occupied",
        pairs=len(march_rays(origins, directions, grid, AABB, STEP)),
        kernel=lambda: march_rays(origins, directions, grid, AABB, STEP, key=1),
        twin=lambda: dense_samples(origins, directions, grid),
    )


def compositing(samples: RaySamples, rays: int) -> Case:
    """Twin: samples padded to the longest ray, cumulative sums along it."""
    torch.manual_seed(0)
    sigma, values = torch.rand(len(samples)).mul_(5.0), torch.rand(len(samples), 3)
    inputs = [sigma.requires_grad_(), values.requires_grad_()]
    first, count = samples.packed.long().unbind(-1)
    shape = (rays, int(count.max()))
    slot = samples.ray_indices * shape[1] + torch.arange(len(samples)) - first[samples.ray_indices]
    delta, middle = samples.t_ends - samples.t_starts, samples.t_middles

    def padded() -> None:
        tau = torch.zeros(shape).view(-1).index_add(0, slot, sigma * delta).view(shape)
        weights = (torch.exp(tau - tau.cumsum(-1)) * -torch.expm1(-tau)).view(-1)[slot]
        ray = samples.ray_indices
        blended = torch.zeros(rays, 3).index_add(0, ray, weights[:, None] * values)
        depth = torch.zeros(rays).index_add(0, ray, weights * middle)
        torch.autograd.grad(blended.sum() + weights.sum() + depth.sum(), inputs)

    def ours() -> None:
        intervals = (samples.t_starts, samples.t_ends, samples.packed)
        blended, opacity, depth, _ = composite(sigma, values, *intervals, early_stop_eps=0.0)
        torch.autograd.grad(blended.sum() + opacity.sum() + depth.sum(), inputs)

    moved = len(samples) * 4 * (3 + 2 + 2 + 3 + 2 + 2 + 3 + 1)
    return Case(name="composite", pairs=len(samples), kernel=ours, twin=padded, bytes=moved)


def resampling(rays: int) -> Case:
    """Twin: `searchsorted` in the cumulative sum. No gradient."""
    bins, weights = torch.linspace(0.0, 1.0, 65).repeat(rays, 1), torch.rand(rays, 64)

    def searched() -> Tensor:
        cdf = torch.nn.functional.pad((weights + 1e-5).cumsum(-1), (1, 0))
        u = (torch.arange(65) + 0.5) / 65 * cdf[:, -1:]
        right = torch.searchsorted(cdf, u).clamp(1, 64)
        below, above = cdf.gather(1, right - 1), cdf.gather(1, right)
        low, high = bins.gather(1, right - 1), bins.gather(1, right)
        return low + (u - below) / (above - below) * (high - low)

    return Case(
        name="importance resampling, 64 of 64",
        pairs=rays * 65,
        kernel=lambda: importance_resample(bins, weights, 64, None),
        twin=searched,
    )

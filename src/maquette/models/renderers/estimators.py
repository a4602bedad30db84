"""Where along a ray a volume is looked at."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.random import StepRandom
from maquette.kernels.composite import importance_resample
from maquette.kernels.occupancy import RaySamples, march_rays
from maquette.models.renderers.occupancy_grid import OccupancyGrid
from maquette.ops.rays import intersect_box, pack, visible_samples
from maquette.ops.volume import alpha_composite, stratified_edges

DensityFn = Callable[[Tensor], Tensor]

EARLY_STOP = 1e-4
"""Transmittance below which nothing further along a ray is looked at."""


def positions(
    samples: RaySamples, rays_o: Float[Tensor, "R 3"], rays_d: Float[Tensor, "R 3"]
) -> Float[Tensor, "S 3"]:
    """World position of the middle of each interval."""
    rows = samples.ray_indices
    return rays_o[rows] + rays_d[rows] * samples.t_middles[:, None]


def jitter_keys(name: str, rng: StepRandom | None, views: int) -> list[int | None]:
    """A key a view for kernels that hash (key, ray); None for no jitter."""
    return [None] * views if rng is None else list(rng.keys(name))


def march_views(
    rays_o: Float[Tensor, "B R 3"],
    rays_d: Float[Tensor, "B R 3"],
    grid: OccupancyGrid,
    step_size: float,
    near: float,
    far: float,
    rng: StepRandom | None,
) -> RaySamples:
    """Equal steps through occupied cells; each view has its own jitter: a batch is only a stack of views."""
    box = grid.box.flatten()
    marched = [
        march_rays(origins, directions, grid.binaries, box, step_size, near, far, key)
        for origins, directions, key in zip(
            rays_o, rays_d, jitter_keys("renderer/jitter", rng, len(rays_o)), strict=True
        )
    ]
    rays_per_view = rays_o.shape[1]
    ray_indices = torch.cat([one.ray_indices.long() + i * rays_per_view for i, one in enumerate(marched)])
    return RaySamples(
        packed=pack(ray_indices, rays_per_view * len(marched)),
        ray_indices=ray_indices,
        t_starts=torch.cat([one.t_starts for one in marched]),
        t_ends=torch.cat([one.t_ends for one in marched]),
    )


@torch.no_grad()
def prune(
    samples: RaySamples,
    rays_o: Float[Tensor, "R 3"],
    rays_d: Float[Tensor, "R 3"],
    density: DensityFn,
    alpha_threshold: float,
    hidden_below: float = EARLY_STOP,
) -> RaySamples:
    """Without the intervals that are transparent or hidden; costs an evaluation of the density."""
    if len(samples) == 0:
        return samples
    sigma = density(positions(samples, rays_o, rays_d)).reshape(-1)
    delta = samples.t_ends - samples.t_starts
    keep = visible_samples(sigma, delta, samples.packed, samples.ray_indices, alpha_threshold, hidden_below)
    return samples.select(keep)


@torch.no_grad()
def importance_views(
    rays_o: Float[Tensor, "B R 3"],
    rays_d: Float[Tensor, "B R 3"],
    box: Float[Tensor, "2 3"],
    density: DensityFn,
    n_coarse: int,
    n_fine: int,
    near: float,
    far: float,
    rng: StepRandom | None,
    keep_coarse: bool = True,
) -> RaySamples:
    """Equal intervals, then more where their weights are (Mildenhall et al. 2020, NeRF, 5.2).

    The union of both, or without `keep_coarse` the `n_fine` new ones alone.
    """
    views, rays_per_view = rays_o.shape[:2]
    origins, directions = rays_o.reshape(-1, 3), rays_d.reshape(-1, 3)
    entry, leave = intersect_box(origins, directions, box)
    entry, leave = entry.clamp(min=near), leave.clamp(max=far)
    hit = (leave > entry).nonzero()[:, 0]
    if len(hit) == 0:
        return _no_samples(len(origins), origins)
    jitter = None
    if rng is not None:
        jitter = rng.uniform("renderer/jitter", rays_per_view).to(origins).reshape(-1)[hit]
    bins = stratified_edges(entry[hit], leave[hit], n_coarse, jitter)
    weights = _coarse_weights(origins[hit], directions[hit], bins, density)
    keys = jitter_keys("renderer/importance", rng, views)
    fine = _resample(bins, weights, n_fine, keys, hit // rays_per_view)
    return _intervals(hit, torch.cat([bins, fine], dim=-1) if keep_coarse else fine, len(origins))


def _coarse_weights(origins: Tensor, directions: Tensor, bins: Tensor, density: DensityFn) -> Tensor:
    middle = 0.5 * (bins[:, 1:] + bins[:, :-1])
    points = origins[:, None] + directions[:, None] * middle[..., None]
    sigma = density(points.reshape(-1, 3)).reshape(middle.shape)
    return alpha_composite(sigma, bins[:, 1:] - bins[:, :-1])


def _resample(bins: Tensor, weights: Tensor, n: int, keys: list[int | None], view: Tensor) -> Tensor:
    fine = bins.new_empty(len(bins), n + 1)
    for i, key in enumerate(keys):
        rows = view == i
        if torch.any(rows):
            fine[rows] = importance_resample(bins[rows].contiguous(), weights[rows].contiguous(), n, key)
    return fine


def _intervals(rays: Tensor, edges: Tensor, n_rays: int) -> RaySamples:
    ordered = edges.sort(dim=-1).values
    starts, ends = ordered[:, :-1].reshape(-1), ordered[:, 1:].reshape(-1)
    ray_indices = rays.repeat_interleave(ordered.shape[1] - 1)
    return RaySamples(pack(ray_indices, n_rays), ray_indices, starts, ends)


def _no_samples(n_rays: int, like: Tensor) -> RaySamples:
    ray_indices = torch.zeros(0, dtype=torch.int64, device=like.device)
    return RaySamples(pack(ray_indices, n_rays), ray_indices, like.new_zeros(0), like.new_zeros(0))

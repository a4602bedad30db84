"""Samples along rays where a boolean grid says that something may be there; empty cells are jumped over."""

# mypy: disable-error-code="index"
# (bodies of kernels are Warp's language)

from dataclasses import dataclass
from typing import Any

import torch
import warp as wp
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.kernels.launch import MODULE_OPTIONS, array, launch_rows
from maquette.ops.rays import pack, pack_counts

wp.set_module_options(MODULE_OPTIONS)


@dataclass(frozen=True)
class RaySamples:
    """S intervals on R rays, ray after ray and front to back on each."""

    packed: Int[Tensor, "R 2"]
    """Per ray: the first of its samples and how many it has (int32)."""
    ray_indices: Int[Tensor, " S"]
    """Ray of each sample (int64)."""
    t_starts: Float[Tensor, " S"]
    """Where the interval begins, as distance along the ray."""
    t_ends: Float[Tensor, " S"]
    """Where the interval ends."""

    def __len__(self) -> int:
        """Number of samples."""
        return self.t_starts.shape[0]

    @property
    def t_middles(self) -> Float[Tensor, " S"]:
        """Middle of each interval, where a quadrature evaluates the field."""
        return 0.5 * (self.t_starts + self.t_ends)

    def select(self, mask: Bool[Tensor, " S"]) -> "RaySamples":
        """The samples where `mask` is true, packed anew."""
        indices = self.ray_indices[mask]
        return RaySamples(pack(indices, len(self.packed)), indices, self.t_starts[mask], self.t_ends[mask])


@torch.no_grad()
def march_rays(
    rays_o: Float[Tensor, "R 3"],
    rays_d: Float[Tensor, "R 3"],
    binaries: Bool[Tensor, "X Y Z"],
    aabb: Float[Tensor, " 6"],
    step_size: float,
    near: float = 0.0,
    far: float = 1e10,
    key: int | None = None,
    max_samples: int | None = None,
) -> RaySamples:
    """Intervals of `step_size` whose middle lies in an occupied cell; the time follows what is occupied.

    Intervals of a ray lie on the lattice start + k step_size, where the start is where the ray enters the
    box or `near`, whichever is later. With a `key` the start moves by a random part of a step, drawn for
    (key, ray).

    Args:
        rays_o: Origins, world frame.
        rays_d: Directions of length one, world frame.
        binaries: Which cells of the box are occupied.
        aabb: The box, world frame: smallest x, y, z, largest x, y, z.
        step_size: Length of an interval, world units.
        near: Distance before which nothing is sampled.
        far: Distance after which nothing is sampled.
        key: Seed of the jitter; None for none.
        max_samples: At most this many samples a ray, the first ones; None for no limit.

    Raises:
        ConfigError: `step_size` is not positive.
    """
    if not step_size > 0.0:
        raise ConfigError("march_rays.step_size", step_size, "a number > 0")
    device, rays = rays_o.device, rays_o.shape[0]
    limit = 2**31 - 1 if max_samples is None else max_samples
    box = _Box(tuple(aabb.tolist()), tuple(binaries.shape), step_size, near, far, key, limit)
    inputs = [array(rays_o.float(), wp.vec3), array(rays_d.float(), wp.vec3), array(binaries), box.to_warp()]
    counts = torch.zeros(rays, dtype=torch.int32, device=device)
    nothing = torch.empty(0, device=device)
    nowhere = torch.empty(0, dtype=torch.int64, device=device)
    outputs = [array(counts), array(nowhere), array(nothing), array(nothing)]
    launch_rows(_march, rays, [*inputs, False, array(pack_counts(counts), wp.vec2i), *outputs], device)
    packed = pack_counts(counts)
    total = int(packed[-1].sum()) if rays else 0
    samples = RaySamples(
        packed,
        torch.empty(total, dtype=torch.int64, device=device),
        torch.empty(total, device=device),
        torch.empty(total, device=device),
    )
    if total:
        outputs = [array(counts), array(samples.ray_indices), array(samples.t_starts), array(samples.t_ends)]
        launch_rows(_march, rays, [*inputs, True, array(packed, wp.vec2i), *outputs], device)
    return samples


@wp.struct
class _March:
    low: wp.vec3
    cell: wp.vec3
    high: wp.vec3
    side: wp.vec3i
    step: wp.float32
    near: wp.float32
    far: wp.float32
    key: wp.int32
    limit: wp.int32


@dataclass(frozen=True)
class _Box:
    aabb: tuple[float, ...]
    side: tuple[int, ...]
    step: float
    near: float
    far: float
    key: int | None
    limit: int

    def to_warp(self) -> Any:
        march = _March()
        low, high = self.aabb[:3], self.aabb[3:]
        march.low, march.high, march.side = wp.vec3(*low), wp.vec3(*high), wp.vec3i(*self.side)
        march.cell = wp.vec3(*((h - v) / n for v, h, n in zip(low, high, self.side, strict=True)))
        march.step, march.near, march.far = self.step, self.near, self.far
        march.key, march.limit = -1 if self.key is None else self.key, self.limit
        return march


@wp.func
def _inverse(direction: wp.float32) -> wp.float32:
    """One over a component of a direction; large instead of infinite."""
    tiny = wp.where(direction < 0.0, -1.0e-12, 1.0e-12)
    return 1.0 / wp.where(wp.abs(direction) < 1.0e-12, tiny, direction)


@wp.func
def _span(origin: wp.vec3, inverse: wp.vec3, low: wp.vec3, high: wp.vec3) -> wp.vec2:
    """Where a ray enters and leaves a box; enters after it leaves where it misses."""
    a = wp.cw_mul(low - origin, inverse)
    b = wp.cw_mul(high - origin, inverse)
    return wp.vec2(wp.max(wp.min(a, b)), wp.min(wp.max(a, b)))


@wp.kernel
def _march(
    first: wp.int32,
    origins: wp.array[wp.vec3],
    directions: wp.array[wp.vec3],
    binaries: wp.array3d[wp.bool],
    march: _March,
    writing: wp.bool,
    packed: wp.array[wp.vec2i],
    counts: wp.array[wp.int32],
    out_ray: wp.array[wp.int64],
    out_start: wp.array[wp.float32],
    out_end: wp.array[wp.float32],
) -> None:
    ray = first + wp.tid()
    origin = origins[ray]
    direction = directions[ray]
    inverse = wp.vec3(_inverse(direction[0]), _inverse(direction[1]), _inverse(direction[2]))
    box = _span(origin, inverse, march.low, march.high)
    start = wp.max(box[0], march.near)
    stop = wp.min(box[1], march.far)
    if march.key >= 0:
        state = wp.rand_init(march.key, ray)
        start += wp.randf(state) * march.step
    base = packed[ray][0]
    count = wp.int32(0)
    k = wp.int32(0)
    middle = start + 0.5 * march.step
    while middle < stop and count < march.limit:
        cell = wp.cw_div(origin + middle * direction - march.low, march.cell)
        x = wp.clamp(wp.int32(cell[0]), 0, march.side[0] - 1)
        y = wp.clamp(wp.int32(cell[1]), 0, march.side[1] - 1)
        z = wp.clamp(wp.int32(cell[2]), 0, march.side[2] - 1)
        if binaries[x, y, z]:
            if writing:
                out_ray[base + count] = wp.int64(ray)
                out_start[base + count] = start + wp.float32(k) * march.step
                out_end[base + count] = start + wp.float32(k + 1) * march.step
            count += 1
            k += 1
        else:
            corner = march.low + wp.cw_mul(wp.vec3(wp.float32(x), wp.float32(y), wp.float32(z)), march.cell)
            leaves = _span(origin, inverse, corner, corner + march.cell)[1]
            k += wp.max(1, wp.int32(wp.ceil((wp.min(leaves, stop) - middle) / march.step)))
        middle = start + (wp.float32(k) + 0.5) * march.step
    if not writing:
        counts[ray] = count

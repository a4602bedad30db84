"""Alpha compositing of samples packed by ray, and the choice of new samples from its weights.

Max 1995, "Optical models for direct volume rendering"; Mildenhall et al. 2020, "NeRF", eq. 3 and section 5.2.
"""

from typing import Any

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from maquette.core.errors import ConfigError
from maquette.kernels.launch import MODULE_OPTIONS, array, launch_rows

wp.set_module_options(MODULE_OPTIONS)

Composited = tuple[Float[Tensor, "R C"], Float[Tensor, " R"], Float[Tensor, " R"], Float[Tensor, " S"]]


def composite(
    sigma: Float[Tensor, " S"],
    values: Float[Tensor, "S C"],
    t_starts: Float[Tensor, " S"],
    t_ends: Float[Tensor, " S"],
    packed: Int[Tensor, "R 2"],
    early_stop_eps: float = 1e-4,
) -> Composited:
    """Values, opacity and depth of each ray, and the weight of each sample.

    w_i = T_i (1 - exp(-sigma_i (t_end_i - t_start_i))) with T_i the light that passes everything in front
    of i (NeRF eq. 3). A ray stops when less than `early_stop_eps` of the light is left; weights behind are
    zero. Depth is the sum of weights times the middle of the interval, not normalised. All four are
    differentiable with respect to `sigma` and `values`.

    Args:
        sigma: Density per world unit.
        values: Anything to be blended, colours say.
        t_starts: Begin of each interval.
        t_ends: End of each interval.
        packed: Per ray: its first sample and how many it has.
        early_stop_eps: 0 never stops early.

    Raises:
        ConfigError: `sigma` and `values` are not as many.
    """
    if sigma.ndim != 1 or values.ndim != 2 or values.shape[0] != sigma.shape[0]:
        raise ConfigError("composite", (tuple(sigma.shape), tuple(values.shape)), "shapes (S,) and (S, C)")
    out: Composited = _Composite.apply(
        sigma.float(), values.float(), t_starts.detach(), t_ends.detach(), packed.int(), early_stop_eps
    )
    return out


@torch.no_grad()
def importance_resample(
    bins: Float[Tensor, "R M1"], weights: Float[Tensor, "R M"], n: int, key: int | None
) -> Float[Tensor, "R n1"]:
    """Edges of `n` new intervals, dense where the weights are (NeRF section 5.2, inverse transform sampling).

    Edge i is where the piecewise linear cumulative distribution passes (i + u) / (n + 1), u uniform for
    (key, ray, i) or one half without a key; edges of a ray are in order. Not differentiable.

    Raises:
        ConfigError: there is not one edge more than weights, or `n` < 1.
    """
    if weights.shape[1] < 1 or bins.shape != (weights.shape[0], weights.shape[1] + 1):
        raise ConfigError("importance_resample.bins", tuple(bins.shape), "one edge more than weights")
    if n < 1:
        raise ConfigError("importance_resample.n", n, "an integer >= 1")
    out = bins.new_empty(bins.shape[0], n + 1, dtype=torch.float32)
    args = [array(bins.float()), array(weights.float()), -1 if key is None else key, array(out)]
    launch_rows(_resample, bins.shape[0], args, bins.device)
    return out


class _Composite(Function):
    """(sigma, values) -> (values, opacity, depth, weights)."""

    @staticmethod
    def forward(
        ctx: Any, sigma: Tensor, values: Tensor, t_starts: Tensor, t_ends: Tensor, packed: Tensor, eps: float
    ) -> Composited:
        rays, channels = packed.shape[0], values.shape[1]
        blended, opacity = values.new_zeros(rays, channels), sigma.new_zeros(rays)
        depth = torch.zeros_like(opacity)
        weights, passed = sigma.new_zeros(2, sigma.shape[0]).unbind(0)
        inputs = [array(sigma), array(values), array(t_starts), array(t_ends), array(packed, wp.vec2i), eps]
        outputs = [array(blended), array(opacity), array(depth), array(weights), array(passed)]
        launch_rows(_blend, rays, [*inputs, *outputs], sigma.device)
        ctx.save_for_backward(values, t_starts, t_ends, packed, weights, passed)
        return blended, opacity, depth, weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, t_starts, t_ends, packed, weights, passed = ctx.saved_tensors
        to_sigma, to_values = torch.zeros_like(weights), values.new_zeros(values.shape)
        inputs = [array(values), array(t_starts), array(t_ends), array(packed, wp.vec2i), array(weights)]
        outputs = [array(to_sigma), array(to_values)]
        args = [*inputs, array(passed), *(array(grad) for grad in grads), *outputs]
        launch_rows(_blend_backward, packed.shape[0], args, weights.device)
        return to_sigma, to_values, None, None, None, None


@wp.func
def _opacity(thickness: wp.float32) -> wp.float32:
    """1 - exp(-thickness); a series where the difference would lose its digits."""
    thin = thickness * (1.0 - 0.5 * thickness * (1.0 - thickness / 3.0))
    return wp.where(wp.abs(thickness) < 1.0e-2, thin, 1.0 - wp.exp(-thickness))


@wp.kernel
def _blend(
    first: wp.int32,
    sigma: wp.array[wp.float32],
    values: wp.array2d[wp.float32],
    t_starts: wp.array[wp.float32],
    t_ends: wp.array[wp.float32],
    packed: wp.array[wp.vec2i],
    eps: wp.float32,
    out_values: wp.array2d[wp.float32],
    out_opacity: wp.array[wp.float32],
    out_depth: wp.array[wp.float32],
    out_weights: wp.array[wp.float32],
    out_passed: wp.array[wp.float32],
) -> None:
    ray = first + wp.tid()
    begin = packed[ray][0]
    end = begin + packed[ray][1]
    light = wp.float32(1.0)
    opacity = wp.float32(0.0)
    depth = wp.float32(0.0)
    i = begin
    while i < end and light >= eps:
        weight = light * _opacity(sigma[i] * (t_ends[i] - t_starts[i]))
        passed = light - weight
        for c in range(values.shape[1]):
            out_values[ray, c] = out_values[ray, c] + weight * values[i, c]
        opacity += weight
        depth += weight * 0.5 * (t_starts[i] + t_ends[i])
        out_weights[i] = weight
        out_passed[i] = passed
        light = passed
        i += 1
    out_opacity[ray] = opacity
    out_depth[ray] = depth


@wp.kernel
def _blend_backward(
    first: wp.int32,
    values: wp.array2d[wp.float32],
    t_starts: wp.array[wp.float32],
    t_ends: wp.array[wp.float32],
    packed: wp.array[wp.vec2i],
    weights: wp.array[wp.float32],
    passed: wp.array[wp.float32],
    grad_values: wp.array2d[wp.float32],
    grad_opacity: wp.array[wp.float32],
    grad_depth: wp.array[wp.float32],
    grad_weights: wp.array[wp.float32],
    to_sigma: wp.array[wp.float32],
    to_values: wp.array2d[wp.float32],
) -> None:
    ray = first + wp.tid()
    begin = packed[ray][0]
    behind = wp.float32(0.0)
    for back in range(packed[ray][1]):
        i = begin + packed[ray][1] - 1 - back
        to_weight = grad_weights[i] + grad_opacity[ray] + grad_depth[ray] * 0.5 * (t_starts[i] + t_ends[i])
        for c in range(values.shape[1]):
            to_weight += grad_values[ray, c] * values[i, c]
            to_values[i, c] = weights[i] * grad_values[ray, c]
        to_sigma[i] = (t_ends[i] - t_starts[i]) * (to_weight * passed[i] - behind)
        behind += to_weight * weights[i]


@wp.kernel
def _resample(
    first: wp.int32,
    bins: wp.array2d[wp.float32],
    weights: wp.array2d[wp.float32],
    key: wp.int32,
    out: wp.array2d[wp.float32],
) -> None:
    ray = first + wp.tid()
    n_bins = weights.shape[1]
    floor = wp.static(wp.float32(1.0e-5))
    total = wp.float32(0.0)
    for m in range(n_bins):
        total += weights[ray, m] + floor
    state = wp.rand_init(key, ray)
    bin = wp.int32(0)
    below = wp.float32(0.0)
    mass = weights[ray, 0] + floor
    for i in range(out.shape[1]):
        u = wp.float32(0.5)
        if key >= 0:
            u = wp.randf(state)
        wanted = total * (wp.float32(i) + u) / wp.float32(out.shape[1])
        while bin < n_bins - 1 and below + mass < wanted:
            below += mass
            bin += 1
            mass = weights[ray, bin] + floor
        part = wp.clamp((wanted - below) / mass, 0.0, 1.0)
        out[ray, i] = bins[ray, bin] + part * (bins[ray, bin + 1] - bins[ray, bin])

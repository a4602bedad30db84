"""How far a coarse histogram of weights along rays fails to cover a fine one (Barron et al. 2022)."""

# mypy: disable-error-code="index"
# (bodies of kernels are Warp's language)

from typing import Any

import torch
import warp as wp
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from maquette.core.errors import ConfigError
from maquette.kernels.launch import MODULE_OPTIONS, array, launch_rows

wp.set_module_options(MODULE_OPTIONS)

SMALLEST = 1e-7
"""Added to a weight before it divides."""


def interlevel_loss(
    edges: Float[Tensor, "R N1"],
    weights: Float[Tensor, "R N"],
    proposal_edges: Float[Tensor, "R M1"],
    proposal_weights: Float[Tensor, "R M"],
) -> Float[Tensor, " R"]:
    """The loss of each ray that trains a proposal: `sum_i max(0, w_i - bound_i)^2 / w_i`.

    The bound of a fine interval is the sum of the proposal's weights over all its intervals that overlap it
    (Barron et al. 2022, Mip-NeRF 360, eq. 12 and 13). Differentiable with respect to `proposal_weights`
    only: the fine weights are the teacher.

    Args:
        edges: fine edges, in order along each ray.
        weights: fine weights, not negative.
        proposal_edges: edges of the proposal, in order.
        proposal_weights: its weights.

    Raises:
        ConfigError: the shapes do not go together.
    """
    rays, n = weights.shape
    m = proposal_weights.shape[1]
    if edges.shape != (rays, n + 1) or proposal_edges.shape != (rays, m + 1) or len(proposal_weights) != rays:
        shapes = [tuple(one.shape) for one in (edges, weights, proposal_edges, proposal_weights)]
        raise ConfigError("interlevel_loss", shapes, "(R, N+1), (R, N), (R, M+1), (R, M)")
    loss: Tensor = _Interlevel.apply(
        proposal_weights.float(), *(one.detach().float() for one in (edges, weights, proposal_edges))
    )
    return loss


class _Interlevel(Function):
    """The gradient is known together with the loss, so it is kept instead of the inputs."""

    @staticmethod
    def forward(ctx: Any, proposal_weights: Tensor, edges: Tensor, weights: Tensor, coarse: Tensor) -> Tensor:
        loss, slope = weights.new_empty(len(weights)), torch.zeros_like(proposal_weights)
        inputs = [array(edges), array(weights), array(coarse), array(proposal_weights)]
        launch_rows(_uncovered, len(weights), [*inputs, array(loss), array(slope)], weights.device)
        ctx.save_for_backward(slope)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grad[:, None] * slope, None, None, None


@wp.kernel
def _uncovered(
    first: wp.int32,
    edges: wp.array2d[wp.float32],
    weights: wp.array2d[wp.float32],
    coarse: wp.array2d[wp.float32],
    proposal: wp.array2d[wp.float32],
    out_loss: wp.array[wp.float32],
    out_slope: wp.array2d[wp.float32],
) -> None:
    ray = first + wp.tid()
    m = proposal.shape[1]
    total = wp.float32(0.0)
    begin = wp.int32(0)
    for i in range(weights.shape[1]):
        low = edges[ray, i]
        high = edges[ray, i + 1]
        while begin < m - 1 and coarse[ray, begin + 1] <= low:
            begin += 1
        bound = wp.float32(0.0)
        end = begin
        while end < m and coarse[ray, end] < high:
            if coarse[ray, end + 1] > low:
                bound += proposal[ray, end]
            end += 1
        weight = weights[ray, i]
        missing = weight - bound
        if missing > 0.0:
            scale = 1.0 / (weight + wp.static(wp.float32(SMALLEST)))
            total += missing * missing * scale
            for j in range(begin, end):
                if coarse[ray, j + 1] > low:
                    out_slope[ray, j] = out_slope[ray, j] - 2.0 * missing * scale
    out_loss[ray] = total

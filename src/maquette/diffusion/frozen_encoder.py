"""A frozen convolutional encoder that keeps less for its backward pass.

Autograd keeps the input of every convolution for the gradient of its weights, which nobody asks for here, and
input and output of every normalisation. Kept here is the input of each normalisation alone, a third of all;
the normalised and activated values are made again, which costs little beside a convolution. Gradients are
those of autograd, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from maquette.diffusion.latent_space import recomputed

Setter = Callable[[Any, str, Any], None]
"""Sets an attribute of an object."""


def keep_less(encoder: nn.Module, set_attribute: Setter) -> None:
    """Let the encoder of a diffusers autoencoder keep less, by attributes of its modules.

    Args:
        encoder: an `Encoder` whose weights are not trained; what is trained keeps all it needs.
        set_attribute: called for each change, so that the caller can take it back.
    """
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros":
            set_attribute(module, "forward", partial(_convolved, module))
        elif isinstance(module, ResnetBlock2D) and isinstance(module.nonlinearity, nn.SiLU):
            for norm in (module.norm1, module.norm2):
                set_attribute(norm, "forward", partial(_normalised, norm))
            set_attribute(module, "nonlinearity", nn.Identity())


def _convolved(conv: nn.Conv2d, x: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O h w"]:
    if conv.weight.requires_grad or not torch.is_grad_enabled():
        return nn.Conv2d.forward(conv, x)
    options = (conv.stride, conv.padding, conv.dilation, conv.groups)
    return _FrozenConvolution.apply(x, conv.weight, conv.bias, options)


def _normalised(norm: nn.GroupNorm, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Normalisation and the activation after it; the weights are handed over, for they may be offloaded."""
    arguments = (x, norm.num_groups, norm.weight, norm.bias, norm.eps)
    return recomputed(_activated, *arguments) if torch.is_grad_enabled() else _activated(*arguments)


def _activated(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.silu(F.group_norm(x, groups, weight, bias, eps))


class _FrozenConvolution(Function):
    """A convolution with a gradient for its input only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]) -> Tensor:
        out = F.conv2d(x, weight, bias, *options)
        ctx.save_for_backward(weight)
        ctx.layout, ctx.options = (x.shape, None if x.is_contiguous() else x.stride()), options
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx | Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        (shape, stride), (step, padding, dilation, groups) = ctx.layout, ctx.options
        # Only the layout of the input counts here; it decides how the gradient is computed and laid out.
        like = grad.new_empty(1).expand(shape) if stride is None else grad.new_empty_strided(shape, stride)
        constants = (None, step, padding, dilation, False, [0], groups, (True, False, False))
        found = torch.ops.aten.convolution_backward(grad, like, weight, *constants)
        return found[0], None, None, None

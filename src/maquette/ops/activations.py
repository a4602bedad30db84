"""Activation functions by the names that recipes use."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from maquette.core.errors import UnknownNameError, asked_for_by
from maquette.ops.color import linear_to_srgb

Activation = Callable[[Tensor], Tensor]

GRADIENT_LIMIT = 15.0
"""Largest exponent whose exponential still gives its true gradient in `truncated_exp`."""


class _TruncatedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.exp(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad * torch.exp(x.clamp(max=GRADIENT_LIMIT))


def truncated_exp(x: Tensor) -> Tensor:
    """exp(x), whose gradient stops growing at x = 15 (Muller et al. 2022, Instant-NGP)."""
    return _TruncatedExp.apply(x)  # type: ignore[no-untyped-call, no-any-return]


def _identity(x: Tensor) -> Tensor:
    return x


_BY_NAME: dict[str, Activation] = {
    "none": _identity,
    "lin2srgb": lambda x: linear_to_srgb(x).clamp(0.0, 1.0),
    "exp": torch.exp,
    "shifted_exp": lambda x: torch.exp(x - 1.0),
    "trunc_exp": truncated_exp,
    "shifted_trunc_exp": lambda x: truncated_exp(x - 1.0),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "shifted_softplus": lambda x: F.softplus(x - 1.0),
    "scale_-11_01": lambda x: x * 0.5 + 0.5,
    "exponential": torch.exp,
    "sine": torch.sin,
    "squareplus": lambda x: 0.5 * (x + torch.sqrt(x * x + 4.0)),
}

OF_TORCH = (
    "celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid", "mish", "relu",
    "relu6", "selu", "silu", "softplus", "softsign",
)  # fmt: skip
"""Activations that are taken from `torch.nn.functional` under their own names."""


def get_activation(name: str | None, asked_by: str = "") -> Activation:
    """The activation called `name`: ours, or one of `torch.nn.functional`; upper and lower case are the same.

    Args:
        name: none, a name, or null for none.
        asked_by: the option that holds it, for the message.

    Raises:
        UnknownNameError: there is no such activation.
    """
    key = (name or "none").lower()
    if key in _BY_NAME:
        return _BY_NAME[key]
    key = key.replace("leakyrelu", "leaky_relu")
    if key in OF_TORCH:
        function: Activation = getattr(F, key)
        return function
    near = difflib.get_close_matches(key, [*_BY_NAME, *OF_TORCH], n=3)
    with asked_for_by(asked_by):
        raise UnknownNameError("activation", str(name), near)

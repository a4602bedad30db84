"""Modules that forget what they computed and compute it again for the gradients: less memory, more time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from maquette.training.patterns import module_at

KEY = "training.gradient_checkpointing"
OWN_WAYS = ("enable_gradient_checkpointing", "gradient_checkpointing_enable")
"""Methods of models (of diffusers, of transformers) that know themselves where to cut."""


def use_gradient_checkpointing(model: nn.Module, paths: Sequence[str]) -> None:
    """Have modules keep their inputs only, and run forward again when gradients pass (Chen et al. 2016,
    "Training Deep Nets with Sublinear Memory Cost").

    A model that has a way of its own uses it; any other module is one segment. Values and gradients are
    the same.

    Raises:
        ConfigError: there is no such module.
    """
    for i, path in enumerate(paths):
        module = module_at(model, path, f"{KEY}[{i}]")
        own = next((getattr(module, name) for name in OWN_WAYS if hasattr(module, name)), None)
        if own is not None:
            own()
        else:
            module.forward = _segment(module, module.forward)  # type: ignore[method-assign]


def _segment(module: nn.Module, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if module.training and torch.is_grad_enabled():
            return checkpoint(original, *args, use_reentrant=False, **kwargs)
        return original(*args, **kwargs)

    return forward

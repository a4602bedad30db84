"""Modules that forget what they computed and compute it again for the gradients: less memory, more time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from maquette.core.log import get_logger
from maquette.training.craft.patterns import module_at

log = get_logger(__name__)

KEY = "training.gradient_checkpointing"
OWN_WAYS: dict[str, dict[str, Any]] = {
    "enable_gradient_checkpointing": {},
    "gradient_checkpointing_enable": {"gradient_checkpointing_kwargs": {"use_reentrant": False}},
}
"""Methods of models (of diffusers, of transformers) that know themselves where to cut; by default those of
transformers drop the gradients of a block whose inputs need none."""


def use_gradient_checkpointing(model: nn.Module, paths: Sequence[str]) -> None:
    """Have modules keep their inputs only, and run forward again when gradients pass (Chen et al. 2016,
    "Training Deep Nets with Sublinear Memory Cost").

    A model that has a way of its own uses it (as a rule in training mode only: others are warned about); any
    other module is one segment. Values and gradients are the same.

    Raises:
        ConfigError: there is no such module.
    """
    for i, path in enumerate(paths):
        module = module_at(model, path, f"{KEY}[{i}]")
        way = next((name for name in OWN_WAYS if hasattr(module, name)), None)
        if way is not None:
            getattr(module, way)(**OWN_WAYS[way])
            if not module.training:
                log.warning("%s[%d]: %s is in evaluation mode, where it forgets nothing", KEY, i, path)
        else:
            module.forward = _segment(model, module, module.forward)  # type: ignore[method-assign]


def _segment(model: nn.Module, module: nn.Module, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        trains = (
            model.training or module.training
        )  # a part that is left in evaluation mode is trained through
        if trains and torch.is_grad_enabled():
            return checkpoint(original, *args, use_reentrant=False, **kwargs)
        return original(*args, **kwargs)

    return forward

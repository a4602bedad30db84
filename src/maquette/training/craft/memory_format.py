"""Channels last: pictures and weights of convolutions with the channel as the innermost dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maquette.core.errors import ConfigError
from maquette.training.craft.patterns import module_at

KEY = "training.channels_last"


def use_channels_last(model: nn.Module, paths: Sequence[str]) -> None:
    """Keep the weights of modules, and hand them their pictures (B, C, H, W), in channels-last memory.

    Values and shapes are the same; only strides change.

    Raises:
        ConfigError: there is no such module, or it has no two-dimensional convolution.
    """
    for i, path in enumerate(paths):
        module = module_at(model, path, f"{KEY}[{i}]")
        if not any(isinstance(one, nn.Conv2d | nn.ConvTranspose2d) for one in module.modules()):
            raise ConfigError(f"{KEY}[{i}]", path, "a module with two-dimensional convolutions")
        module.to(memory_format=torch.channels_last)
        module.register_forward_pre_hook(_converted, with_kwargs=True)


def _converted(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    return tuple(map(_last, args)), {name: _last(value) for name, value in kwargs.items()}


def _last(value: Any) -> Any:
    if isinstance(value, Tensor) and value.ndim == 4:
        return value.contiguous(memory_format=torch.channels_last)
    return value

"""Changes to a UNet that undo themselves, also after an exception."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def disable_unet_class_embedding(unet: nn.Module) -> Iterator[nn.Module]:
    """The UNet without its class embedding, and so without class labels or a camera condition."""
    with replaced(unet, "class_embedding", None):
        yield unet


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name` is `value` for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """The module in evaluation mode; each submodule goes back to the mode it was in."""
    modes = [(one, one.training) for one in module.modules()]
    module.eval()
    try:
        yield module
    finally:
        for one, training in modes:
            one.training = training


@contextmanager
def frozen(module: nn.Module) -> Iterator[nn.Module]:
    """The module with no parameter asking for a gradient; each goes back to what it was."""
    flags = [(one, one.requires_grad) for one in module.parameters()]
    module.requires_grad_(False)
    try:
        yield module
    finally:
        for one, flag in flags:
            one.requires_grad_(flag)

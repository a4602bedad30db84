"""Initialisation keyed by name, so that it depends on the seed and on nothing that was built before.

A module that owns parameters implements `init_from(generator)`. It calls that itself when it is built
(with the seed torch was given), so it is never without values; `init_parameters` draws all of a tree
again, each module from a generator of its own qualified name. Adding a module to a system, or building two
in another order, then changes no other module.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from maquette.core.base import BaseModule
from maquette.core.random import named_generator


@runtime_checkable
class KeyedInit(Protocol):
    """Something whose parameters can be drawn from a generator."""

    def init_from(self, generator: torch.Generator) -> None:
        """Draw all parameters that this module itself owns (its submodules may have their own)."""
        ...


def init_parameters(module: nn.Module, seed: int, prefix: str = "") -> None:
    """Draw the parameters of everything below `module` that implements `KeyedInit`, keyed by (seed,
    qualified name).

    Modules whose config takes their weights from a file (`weights: path:name`), and everything below them,
    keep what they loaded. Modules of other libraries (a pretrained UNet, say) are never touched.

    Args:
        module: the root.
        seed: the seed of the run.
        prefix: qualified name of `module` in the system, for example "geometry"; empty for the system itself.
    """
    for name, one in _drawn_modules(module, prefix):
        if isinstance(one, KeyedInit):
            with torch.no_grad():
                one.init_from(named_generator(seed, name))


def _drawn_modules(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, BaseModule) and module.cfg.weights is not None:
        return
    yield name, module
    for child_name, child in module.named_children():
        yield from _drawn_modules(child, f"{name}.{child_name}" if name else child_name)

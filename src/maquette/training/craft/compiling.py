"""``torch.compile`` for chosen modules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from maquette.core.errors import ConfigError
from maquette.training.craft.patterns import module_at

KEY = "training.compile"


def compile_modules(model: nn.Module, paths: Sequence[str], mode: str = "default") -> None:
    """Have the forward passes of modules compiled at their first call.

    Names of weights, and hooks, stay as they are: only ``forward`` is replaced.

    Raises:
        ConfigError: there is no such module; later, at the first call, that it cannot be compiled here.
    """
    for i, path in enumerate(paths):
        module = module_at(model, path, f"{KEY}[{i}]")
        original = module.forward
        compiled = torch.compile(original, mode=None if mode == "default" else mode)
        module.forward = _explained(path, original, compiled)  # type: ignore[method-assign]


def _explained(path: str, original: Callable[..., Any], compiled: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        try:
            return compiled(*args, **kwargs)
        except Exception as err:
            if not _is_of_the_compiler(err):
                raise
            first = " ".join((str(err).strip() or type(err).__name__).splitlines()[:2])
            raise ConfigError(
                KEY,
                path,
                f"a module that torch.compile can build on this machine ({first})",
                "take it out of training.compile; on a CPU a C++ compiler has to be installed",
            ) from err

    return forward


def _is_of_the_compiler(err: BaseException) -> bool:
    return type(err).__module__.startswith(("torch._dynamo", "torch._inductor"))

"""What passes through the modules of a model, forwards and backwards, inside a ``with`` block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from maquette.training.craft.patterns import module_at

Capture = dict[str, Any]
"""By the path of the module: what it was given or gave last; tensors, or what holds them."""

KEY = "modules"


@contextmanager
def capture_features(model: nn.Module, paths: Sequence[str], *, detach: bool = True) -> Iterator[Capture]:
    """The outputs of modules (forward hooks), as of their last call.

    Args:
        model: whose modules.
        paths: their dotted paths.
        detach: give copies without history; without, the very tensors, part of the graph.

    Raises:
        ConfigError: there is no such module.
    """
    seen: Capture = {}

    def hook(path: str, module: nn.Module, args: Any, output: Any) -> None:
        seen[path] = _detached(output) if detach else output

    with _hooked(model, paths, lambda module, path: module.register_forward_hook(partial(hook, path))):
        yield seen


@contextmanager
def capture_inputs(model: nn.Module, paths: Sequence[str]) -> Iterator[Capture]:
    """The positional inputs of modules (forward pre-hooks), each a tuple, as of their last call.

    Raises:
        ConfigError: there is no such module.
    """
    seen: Capture = {}

    def hook(path: str, module: nn.Module, args: Any) -> None:
        seen[path] = _detached(args)

    with _hooked(model, paths, lambda module, path: module.register_forward_pre_hook(partial(hook, path))):
        yield seen


@contextmanager
def capture_gradients(model: nn.Module, paths: Sequence[str]) -> Iterator[Capture]:
    """The gradients of the loss with respect to the outputs of modules (full backward hooks).

    Each is a tuple with one entry for each output of the last backward pass; None where an output had no
    part in the loss.

    Raises:
        ConfigError: there is no such module.
    """
    seen: Capture = {}

    def hook(path: str, module: nn.Module, inputs: Any, outputs: Any) -> None:
        seen[path] = _detached(outputs)

    with _hooked(model, paths, lambda module, path: module.register_full_backward_hook(partial(hook, path))):
        yield seen


@contextmanager
def retain_gradients(model: nn.Module, paths: Sequence[str]) -> Iterator[Capture]:
    """The output tensors of modules with their gradients kept: after backward, read ``.grad`` of each.

    Outputs that are no tensor, or outside of any graph, are captured as they are.

    Raises:
        ConfigError: there is no such module.
    """
    with capture_features(model, paths, detach=False) as seen:
        with _hooked(model, paths, lambda module, _: module.register_forward_hook(_retain)):
            yield seen


def _retain(module: nn.Module, args: Any, output: Any) -> None:
    if isinstance(output, Tensor) and output.requires_grad:
        output.retain_grad()


@contextmanager
def _hooked(
    model: nn.Module, paths: Sequence[str], register: Callable[[nn.Module, str], Any]
) -> Iterator[None]:
    """Hooks on modules, removed at the end whatever happens."""
    modules = [(module_at(model, path, KEY), path) for path in paths]
    with ExitStack() as stack:
        for module, path in modules:
            stack.callback(register(module, path).remove)
        yield


def _detached(value: Any) -> Any:
    """A copy outside of the graph: a layer that works in place would change the tensor itself."""
    if isinstance(value, Tensor):
        return value.detach().clone(memory_format=torch.preserve_format)
    if isinstance(value, tuple | list):
        return type(value)(map(_detached, value)) if type(value) in (tuple, list) else value
    if isinstance(value, dict):
        return {name: _detached(one) for name, one in value.items()}
    return value

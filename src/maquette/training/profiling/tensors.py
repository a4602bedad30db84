"""The tensors that are alive: how many, how large, who holds them, and where they were made."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from maquette.training.profiling.source_line import calling_line

MAX_VISITED = 400
"""Containers that are followed to find who holds a tensor."""


class Kind(NamedTuple):
    """What tensors that pile up have in common."""

    shape: tuple[int, ...]
    dtype: str
    graph: str | None
    """The function at the head of the graph that it keeps alive."""

    def __str__(self) -> str:
        text = f"{self.dtype.removeprefix('torch.')} {list(self.shape)}"
        return f"{text} with the graph of {self.graph}" if self.graph else text


@dataclass(frozen=True)
class Census:
    """The living tensors of one moment that belong to no module or optimizer."""

    count: Counter[Kind] = field(default_factory=Counter)
    size: Counter[Kind] = field(default_factory=Counter)
    """Bytes."""

    @property
    def total(self) -> int:
        """Bytes of all."""
        return sum(self.size.values())

    @property
    def graphs(self) -> int:
        """Number of tensors that keep a graph alive."""
        return sum(number for kind, number in self.count.items() if kind.graph)


def live_tensors() -> list[Tensor]:
    """Every tensor that Python knows, garbage excluded."""
    gc.collect()
    kinds = _with_subclasses(Tensor)
    return [one for one in gc.get_objects() if type(one) in kinds]


def live_bytes() -> int:
    """Bytes of all living tensors; memory that several share counts once."""
    storages = {}
    for one in live_tensors():
        if one.layout is not torch.strided:
            continue
        storage = one.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def owned(model: nn.Module, optimizers: Iterable[Optimizer]) -> set[int]:
    """Identities of parameters, buffers, gradients, and of what optimizers remember."""
    found: set[int] = set()
    for one in (*model.parameters(), *model.buffers()):
        found.add(id(one))
        if one.is_leaf and one.grad is not None:
            found.add(id(one.grad))
    for optimizer in optimizers:
        for state in optimizer.state.values():
            found |= {id(value) for value in state.values()}
    return found


def take_census(model: nn.Module, optimizers: Iterable[Optimizer]) -> Census:
    """Count what is alive and has no owner."""
    count: Counter[Kind] = Counter()
    size: Counter[Kind] = Counter()
    known = owned(model, optimizers)
    for one in live_tensors():
        if id(one) not in known:
            kind = kind_of(one)
            count[kind] += 1
            size[kind] += one.numel() * one.element_size()
    return Census(count, size)


def kind_of(tensor: Tensor) -> Kind:
    """Shape, type and graph of a tensor."""
    graph = tensor.grad_fn
    return Kind(tuple(tensor.shape), str(tensor.dtype), None if graph is None else graph.name())


def holder(tensor: Tensor, model: nn.Module) -> str | None:
    """The attribute, by dotted path, of the module that holds a tensor, itself or in containers."""
    homes = {id(vars(module)): (name, module) for name, module in model.named_modules()}
    queue: list[Any] = [tensor]
    visited = {id(queue)}
    while queue and len(visited) < MAX_VISITED:
        wanted = queue.pop(0)
        for one in gc.get_referrers(wanted):
            if id(one) in visited:
                continue
            visited.add(id(one))
            if id(one) in homes:
                name, module = homes[id(one)]
                found = [key for key, value in vars(module).items() if value is wanted]
                path = f"{name}." if name else ""
                return f"{path}{found[0] if found else '?'} ({type(module).__name__})"
            if isinstance(one, dict | list | tuple | set) or type(one).__name__ in ("deque", "cell"):
                queue.append(one)
    return None


def _with_subclasses(cls: type) -> set[type]:
    return {cls}.union(*map(_with_subclasses, cls.__subclasses__()))


class CreationPlaces(TorchDispatchMode):
    """Remembers, for every tensor that is made inside the block, the line that made it."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[tuple[weakref.ref[Tensor], str]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what was asked, and write down where."""
        result = func(*args, **(kwargs or {}))
        if func._schema.is_mutable:  # its result is one of its arguments
            return result
        for one in result if isinstance(result, list | tuple) else (result,):
            if isinstance(one, Tensor):
                self._made.append((weakref.ref(one), calling_line()))
        return result

    def surviving(self) -> Counter[str]:
        """Lines whose tensors are still alive, with their number."""
        gc.collect()
        return Counter(line for made, line in self._made if made() is not None)

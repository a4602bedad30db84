"""What every configurable part of a run is made of."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from maquette.core.device import current_device
from maquette.core.errors import ConfigError, asked_for_by
from maquette.core.loading import load_module_weights
from maquette.core.structured import parse_structured

CONFIG_KEYS = {"data": "data", "system": "system"}
"""Where the config of a kind stands in a recipe; every other kind is a key below `system`."""


class Configurable:
    """Has a keyword-only dataclass `Config`; an instance of it, checked, is `self.cfg`."""

    kind: ClassVar[str] = ""
    """The kind of module, as the registry knows it."""

    @dataclass(kw_only=True)
    class Config:
        """No options."""

    cfg: Any

    def __init__(self, cfg: Any = None) -> None:
        super().__init__()
        self.cfg = self.parse_config(cfg)

    @classmethod
    def parse_config(cls, cfg: Any = None) -> Any:
        """The checked `Config` of this class; messages name the place in the recipe where its kind stands."""
        return parse_structured(cls.Config, cfg, cls.config_key())

    @classmethod
    def config_key(cls) -> str:
        """Full path of this kind's config in a recipe."""
        if not cls.kind:
            return ""
        return CONFIG_KEYS.get(cls.kind, f"system.{cls.kind.replace('-', '_')}")


class Updateable:
    """Is told about every step, after its children were.

    Children are the submodules of an `nn.Module`, every other Updateable that is assigned to an attribute,
    and what was passed to `add_updateable`. A child that is reachable twice is told once; the order of
    siblings means nothing.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        children = self.__dict__.setdefault("_updateable_children", {})
        if isinstance(value, Updateable) and not isinstance(value, nn.Module):
            children[name] = value
        else:
            children.pop(name, None)
        super().__setattr__(name, value)

    def add_updateable(self, *children: Any) -> None:
        """Register children that no attribute holds directly (a list's items, say); others are ignored."""
        known = self.__dict__.setdefault("_updateable_children", {})
        known.update({f"#{id(child)}": child for child in children if isinstance(child, Updateable)})

    def do_update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Call `update_step` of everything below, children first, then of this."""
        for one in _below(self):
            one.update_step(epoch, global_step, on_load_weights)

    def do_update_step_end(self, epoch: int, global_step: int) -> None:
        """Call `update_step_end` of everything below, children first, then of this."""
        for one in _below(self):
            one.update_step_end(epoch, global_step)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Do what is due before this step; `on_load_weights` when the step comes from a file of weights."""

    def update_step_end(self, epoch: int, global_step: int) -> None:
        """Do what is due after this step."""


def update_if_possible(module: Any, epoch: int, global_step: int) -> None:
    """`do_update_step` for what is Updateable; anything else is left alone."""
    if isinstance(module, Updateable):
        module.do_update_step(epoch, global_step)


def update_end_if_possible(module: Any, epoch: int, global_step: int) -> None:
    """`do_update_step_end` for what is Updateable; anything else is left alone."""
    if isinstance(module, Updateable):
        module.do_update_step_end(epoch, global_step)


class BaseObject(Configurable, Updateable):
    """A configured part without trained parameters of the system: guidance, prompt processor, exporter."""

    device: torch.device

    def __init__(self, cfg: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(cfg)
        self.device = current_device()
        self.configure(*args, **kwargs)

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Build what the config asks for."""


class BaseModule(Configurable, Updateable, nn.Module):
    """A configured `nn.Module`: geometry, material, background, renderer.

    `device` is where it was made; the empty buffer `_dummy` goes where the module goes.
    """

    @dataclass(kw_only=True)
    class Config:
        """Options that every module has."""

        weights: str | None = None
        """Take the weights of one module of a checkpoint: "PATH:module_name"."""

    device: torch.device
    _dummy: torch.Tensor

    def __init__(self, cfg: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(cfg)
        self.device = current_device()
        self.register_buffer("_dummy", torch.zeros(0), persistent=False)
        self.configure(*args, **kwargs)
        if self.cfg.weights is not None:
            self._load(self.cfg.weights)

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Build what the config asks for."""

    def _load(self, weights: str) -> None:
        path, _, name = weights.rpartition(":")
        if not path or not name:
            raise ConfigError("weights", weights, 'text of the form "PATH:module_name"')
        with asked_for_by("weights"):
            found = load_module_weights(path, name)
        self.load_state_dict(found.state_dict)
        self.do_update_step(found.epoch, found.global_step, on_load_weights=True)


def _below(root: Updateable) -> Iterator[Updateable]:
    """Everything Updateable that is reachable from `root`, children before parents, each once."""
    seen: set[int] = set()

    def visit(node: Any) -> Iterator[Updateable]:
        if id(node) in seen:
            return
        seen.add(id(node))
        for child in _children(node):
            yield from visit(child)
        if isinstance(node, Updateable):
            yield node

    yield from visit(root)


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, nn.Module):
        yield from node.children()
    yield from getattr(node, "_updateable_children", {}).values()

"""Optimizers and learning-rate schedulers from their config blocks."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from maquette.core.errors import ConfigError, UnknownNameError

COMPOSED_SCHEDULERS = ("SequentialLR", "ChainedScheduler")


def parse_optimizer(config: Mapping[str, Any], model: nn.Module) -> Optimizer:
    """The optimizer of ``{name, args, params}``.

    ``params`` maps dotted paths inside ``model`` (modules or single parameters) to the arguments of their
    group; without it every trainable parameter of the model is one group.

    Raises:
        ConfigError: a path matches nothing, holds no parameter, or an argument does not exist.
        UnknownNameError: ``torch.optim`` has no optimizer of that name.
    """
    config = plain(config)
    args = dict(config.get("args") or {})
    groups = _groups(config["params"], model) if config.get("params") else _all_trainable(model)
    make = _find_class("optimizer", torch.optim, config.get("name", ""), Optimizer)
    return _call("system.optimizer.args", make, groups, args)


def parse_scheduler(config: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """The ``{"scheduler", "interval"}`` that Lightning expects, from ``{name, interval, args}``.

    ``SequentialLR`` takes ``schedulers`` and ``milestones``, ``ChainedScheduler`` takes ``schedulers``; both
    may be nested.

    Raises:
        ConfigError: ``interval`` is neither ``epoch`` nor ``step``, or an argument does not exist.
        UnknownNameError: ``torch.optim.lr_scheduler`` has no scheduler of that name.
    """
    config = plain(config)
    interval = config.get("interval", "epoch")
    if interval not in ("epoch", "step"):
        raise ConfigError("system.scheduler.interval", interval, "one of: epoch, step")
    return {"scheduler": _scheduler(config, optimizer), "interval": interval}


def plain(config: Any) -> Any:
    """The config as dicts and lists: torch keeps what it is given, and checkpoints must hold no OmegaConf."""
    if isinstance(config, DictConfig | ListConfig):
        return OmegaConf.to_container(config, resolve=True)
    if isinstance(config, Mapping):
        return {key: plain(value) for key, value in config.items()}
    return config


def parameters_at(model: nn.Module, path: str) -> list[nn.Parameter]:
    """Parameters of the module, or the single parameter, at a dotted ``path``.

    Raises:
        ConfigError: nothing is there, or what is there has no parameters.
    """
    found = _walk(model, path)
    if isinstance(found, nn.Parameter):
        return [found]
    if isinstance(found, nn.Module) and (parameters := list(found.parameters())):
        return parameters
    names = sorted(_trainable_names(model))
    near = difflib.get_close_matches(path, names, n=3, cutoff=0.4) or names[:5]
    raise ConfigError(
        f"system.optimizer.params.{path}",
        path,
        "a module or a parameter that can be optimised; near: " + ", ".join(near),
    )


def _walk(model: nn.Module, path: str) -> Any:
    found: Any = model
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def _trainable_names(model: nn.Module) -> Iterator[str]:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parts = name.split(".")
            yield from (".".join(parts[: n + 1]) for n in range(len(parts)))


def _groups(params: Mapping[str, Any], model: nn.Module) -> list[dict[str, Any]]:
    return [
        {"params": parameters_at(model, path), "name": path, **(options or {})}
        for path, options in params.items()
    ]


def _all_trainable(model: nn.Module) -> list[dict[str, Any]]:
    return [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]


def _scheduler(config: Mapping[str, Any], optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    name = config.get("name", "")
    if name in COMPOSED_SCHEDULERS:
        return _composed(name, config, optimizer)
    make = _find_class("scheduler", lr_scheduler, name, lr_scheduler.LRScheduler)
    return _call("system.scheduler.args", make, optimizer, dict(config.get("args") or {}))


def _composed(name: str, config: Mapping[str, Any], optimizer: Optimizer) -> lr_scheduler.LRScheduler:
    parts = [_scheduler(part, optimizer) for part in config.get("schedulers", ())]
    try:
        if name == "SequentialLR":
            return lr_scheduler.SequentialLR(optimizer, parts, milestones=list(config.get("milestones", ())))
        return lr_scheduler.ChainedScheduler(parts, optimizer=optimizer)
    except (TypeError, ValueError, IndexError) as err:
        raise ConfigError("system.scheduler", config, f"schedulers that {name} accepts ({err})") from err


def _find_class(kind: str, module: Any, name: str, base: type) -> Any:
    found = getattr(module, name, None) if name else None
    if isinstance(found, type) and issubclass(found, base):
        return found
    known = sorted(
        key
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and value is not base and key[0] != "_"
    )
    raise UnknownNameError(kind, name, difflib.get_close_matches(name, known, n=3, cutoff=0.5), known)


def _call(key: str, make: Any, subject: Any, args: dict[str, Any]) -> Any:
    try:
        return make(subject, **args)
    except (TypeError, ValueError) as err:
        raise ConfigError(key, args, f"arguments that {make.__name__} accepts ({err})") from err

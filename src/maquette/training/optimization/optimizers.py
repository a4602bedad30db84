"""Optimizers and learning-rate schedulers from their config blocks."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from maquette.core.errors import ConfigError, UnknownKeyError, UnknownNameError
from maquette.core.optional import require
from maquette.core.schedule import Schedule
from maquette.training.arguments import called, check_arguments, near_arguments
from maquette.training.optimization.parameter_groups import KEY, parameter_groups
from maquette.training.optimization.schedulers import ChainedScheduler, SequentialLR
from maquette.training.optimization.state import WAYS, keep_to_this_machine

OPTIMIZER_KEYS = ("name", "args", "params", "weight_decay_on")
SCHEDULER_KEYS = (
    "name", "args", "interval", "frequency", "monitor", "strict", "schedulers", "milestones",
)  # fmt: skip
COMPOSED_SCHEDULERS = ("SequentialLR", "ChainedScheduler")
PLATEAU = "ReduceLROnPlateau"
"""The scheduler that waits for a number instead of counting."""
SEVERAL_OPTIMIZERS = ("Adan", "AdaBelief", "Lamb", "Lion", "Prodigy", "Ranger", "ScheduleFreeAdamW", "SOAP")
"""Names, of many, that the package pytorch-optimizer has."""

_REFUSALS = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, NotImplementedError)
"""What constructors of torch raise at arguments they do not take."""


def parse_optimizer(config: Mapping[str, Any], model: nn.Module) -> Optimizer:
    """The optimizer of ``{name, args, params, weight_decay_on}``.

    ``name`` is a class of ``torch.optim``, one of the package pytorch-optimizer (``Adan``, ``Lion``, ...; the
    extra ``optim``), or ``FusedAdam``, which this ecosystem's recipes take from apex. ``params`` and
    ``weight_decay_on`` are those of :func:`maquette.training.optimization.parameter_groups.parameter_groups`.

    Raises:
        ConfigError: a path matches nothing, holds no parameter, or an argument does not exist.
        UnknownNameError: no optimizer has that name.
        MissingBackendError: the optimizer needs the extra ``optim``.
    """
    config = _checked(config, "system.optimizer", OPTIMIZER_KEYS)
    make, defaults = _optimizer_class(config.get("name"))
    args = defaults | _mapping("system.optimizer.args", config.get("args"))
    groups = parameter_groups(model, config.get("params"), config.get("weight_decay_on", "all"))
    check_arguments("system.optimizer.args", make, args, filled=("params",))
    optimizer: Optimizer = called(
        "system.optimizer.args", make.__name__, partial(make, groups), args, _REFUSALS
    )
    _check_group_options(optimizer, config.get("params") or {})
    _try_step(make, groups, args)
    keep_to_this_machine(optimizer)
    return optimizer


def parse_scheduler(config: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """What Lightning expects of a scheduler, from ``{name, interval, frequency, args}``.

    ``SequentialLR`` takes ``schedulers`` and ``milestones``, ``ChainedScheduler`` takes ``schedulers``; both
    may be nested. ``ReduceLROnPlateau`` takes ``monitor``, the name of a logged number. ``lr_lambda`` of
    ``LambdaLR`` is a schedule of the factor, such as ``[0, 1.0, 0.1, 1000]``. Everything that is counted,
    milestones too, is counted in the ``interval``: epochs, or steps of the optimizer, however many batches
    make one.

    Raises:
        ConfigError: ``interval`` is neither ``epoch`` nor ``step``, or an argument does not exist.
        UnknownNameError: ``torch.optim.lr_scheduler`` has no scheduler of that name.
    """
    config = _checked(config, "system.scheduler", SCHEDULER_KEYS)
    interval, frequency = config.get("interval", "epoch"), config.get("frequency", 1)
    if interval not in ("epoch", "step"):
        raise ConfigError("system.scheduler.interval", interval, "one of: epoch, step")
    if isinstance(frequency, bool) or not isinstance(frequency, int) or frequency < 1:
        raise ConfigError("system.scheduler.frequency", frequency, "an integer >= 1")
    _try_out(config, optimizer)
    scheduler = _scheduler(config, optimizer, "system.scheduler")
    parsed = {"scheduler": scheduler, "interval": interval, "frequency": frequency}
    return parsed | _monitored(config, scheduler)


def plain(config: Any) -> Any:
    """The config as dicts and lists: torch keeps what it is given, and checkpoints must hold no OmegaConf."""
    if isinstance(config, DictConfig | ListConfig):
        return OmegaConf.to_container(config, resolve=True)
    if isinstance(config, Mapping):
        return {key: plain(value) for key, value in config.items()}
    return config


# optimizers -------------------------------------------------------------------------------------------------


def _optimizer_class(name: Any) -> tuple[Any, dict[str, Any]]:
    """The class that a name stands for, and the arguments that the name implies."""
    if name == "FusedAdam":
        return torch.optim.AdamW, {"weight_decay": 0.0}  # not fused: clipping of scaled gradients is refused
    found = _class_in(torch.optim, name, Optimizer)
    near = difflib.get_close_matches(str(name), _classes(torch.optim, Optimizer), n=3, cutoff=0.8)
    if found is None and (name in SEVERAL_OPTIMIZERS or (not near and find_spec("pytorch_optimizer"))):
        found = _class_in(require("pytorch_optimizer", "optim"), name, Optimizer)
    if found is None:
        raise _unknown("optimizer", name, [*_classes(torch.optim, Optimizer), *SEVERAL_OPTIMIZERS])
    return found, {}


def _check_group_options(optimizer: Optimizer, params: Mapping[str, Any]) -> None:
    """Raise an UnknownKeyError for an option of a group that the optimizer does not have."""
    known = list(optimizer.defaults)
    for path, options in params.items():
        for name in options or {}:
            if name not in known:
                raise UnknownKeyError(f"{KEY}.{path}.{name}", near_arguments(str(name), known), known)


def _try_step(make: Any, groups: list[Any], args: Mapping[str, Any]) -> None:
    """Step once on small weights made for it: some mistakes, such as a missing third beta, show only then."""
    if not make.__module__.startswith("torch.optim") or make is torch.optim.SparseAdam:
        return
    settings = {name: value for name, value in args.items() if name not in WAYS}
    twins = []
    for group in groups:
        weight = torch.zeros(2, 2, requires_grad=True)
        weight.grad = torch.zeros(2, 2)
        options = {name: value for name, value in group.items() if name not in WAYS}
        twins.append({**options, "params": [weight]})
    try:
        make(twins, **settings).step(lambda: torch.zeros(()))
    except (*_REFUSALS, RuntimeError) as err:
        expected = f"values that {make.__name__} can step with ({err})"
        raise ConfigError("system.optimizer", args, expected) from err


# schedulers -------------------------------------------------------------------------------------------------


def _scheduler(config: Mapping[str, Any], optimizer: Optimizer, key: str) -> lr_scheduler.LRScheduler:
    name = config.get("name")
    if name in COMPOSED_SCHEDULERS:
        return _composed(str(name), config, optimizer, key)
    make = _class_in(lr_scheduler, name, lr_scheduler.LRScheduler)
    if make is None:
        raise _unknown("scheduler", name, _classes(lr_scheduler, lr_scheduler.LRScheduler))
    args = _mapping(f"{key}.args", config.get("args"))
    if "lr_lambda" in args:
        args["lr_lambda"] = _factor(f"{key}.args.lr_lambda", args["lr_lambda"])
    check_arguments(f"{key}.args", make, args, filled=("optimizer",))
    scheduler: lr_scheduler.LRScheduler = called(
        f"{key}.args", make.__name__, partial(make, optimizer), args, _REFUSALS
    )
    return scheduler


def _try_out(config: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Step twice on small weights made for it: some missing arguments show only then."""
    kind = torch.optim.SGD if "momentum" in optimizer.defaults else torch.optim.Adam
    more = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    groups = [{"params": [torch.zeros(1)], "lr": float(group["lr"])} for group in optimizer.param_groups]
    twin = kind(groups, **more)
    scheduler = _scheduler(config, twin, "system.scheduler")
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        return
    try:
        for _ in range(2):
            twin.step()
            scheduler.step()
    except _REFUSALS as err:
        raise ConfigError("system.scheduler", config, f"arguments that it can step with ({err})") from err


def _composed(
    name: str, config: Mapping[str, Any], optimizer: Optimizer, key: str
) -> lr_scheduler.LRScheduler:
    given, milestones = config.get("schedulers") or [], config.get("milestones") or []
    if not isinstance(given, list | tuple) or not all(isinstance(part, Mapping) for part in given):
        raise ConfigError(f"{key}.schedulers", given, "a list of schedulers, each {name, args}")
    if any(part.get("name") == PLATEAU for part in given):
        raise ConfigError(
            f"{key}.schedulers", given, "schedulers that only count; ReduceLROnPlateau stands alone"
        )
    keys = [f"{key}.schedulers[{i}]" for i in range(len(given))]
    blocks = [_checked(part, one, SCHEDULER_KEYS) for part, one in zip(given, keys, strict=True)]
    parts = [_scheduler(part, optimizer, one) for part, one in zip(blocks, keys, strict=True)]
    try:
        if name == "SequentialLR":
            return SequentialLR(optimizer, parts, milestones=list(milestones))
        return ChainedScheduler(parts, optimizer=optimizer)
    except _REFUSALS as err:
        raise ConfigError(key, config, f"schedulers that {name} accepts ({err})") from err


def _monitored(config: Mapping[str, Any], scheduler: lr_scheduler.LRScheduler) -> dict[str, Any]:
    if not isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        return {}
    monitor = config.get("monitor")
    if not isinstance(monitor, str) or not monitor:
        raise ConfigError("system.scheduler.monitor", monitor, "a logged number, such as train/loss")
    return {"monitor": monitor, "strict": bool(config.get("strict", True))}


def _factor(key: str, value: Any) -> Any:
    """A schedule as the function of the step that torch's lambda schedulers call."""
    schedule = Schedule.parse(value, key=key)
    return lambda step: schedule.at(step=step)


# both -------------------------------------------------------------------------------------------------------


def _checked(config: Mapping[str, Any], key: str, known: tuple[str, ...]) -> dict[str, Any]:
    """The plain block; an unknown key is refused, but for a block ``{name: ...}`` that an extension reads."""
    block = _mapping(key, plain(config))
    for name, value in block.items():
        near = difflib.get_close_matches(str(name), known, n=3)
        further = isinstance(value, Mapping) and "name" in value
        if name not in known and (near or not further):
            raise UnknownKeyError(f"{key}.{name}", near, known)
    return block


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(key, value, "a mapping of names to values")
    return dict(value)


def _class_in(module: Any, name: Any, base: type) -> Any:
    found = getattr(module, name, None) if isinstance(name, str) and name else None
    return found if isinstance(found, type) and issubclass(found, base) and found is not base else None


def _classes(module: Any, base: type) -> list[str]:
    return sorted(name for name in vars(module) if name[0] != "_" and _class_in(module, name, base))


def _unknown(kind: str, name: Any, known: list[str]) -> UnknownNameError:
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    error = UnknownNameError(kind, str(name or ""), near, known)
    error.details.append(f"asked for by system.{kind}.name")
    return error

"""The `${name:...}` functions that recipes of this ecosystem use."""

import operator
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from omegaconf import OmegaConf

from maquette.core.schedule import Schedule


def _peaks_above_zero(*schedules: Any) -> bool:
    return any(Schedule.parse(value).maximum > 0 for value in schedules)


def _decay_rate(factor: Any, steps: Any) -> Any:
    """What a rate is multiplied with in each step, to be `factor` times as high after `steps`."""
    if steps == 0:
        raise ValueError("calc_exp_lr_decay_rate needs a number of steps that is not 0")
    return factor ** (1.0 / steps)


RESOLVERS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "idiv": operator.floordiv,
    "not": operator.not_,
    "gt0": lambda value: value > 0,
    "basename": lambda path: PurePath(str(path)).name,
    "rmspace": lambda text, substitute: str(text).replace(" ", substitute),
    "tuple2": lambda value: [float(value), float(value)],
    "calc_exp_lr_decay_rate": _decay_rate,
    "cmaxgt0": _peaks_above_zero,
    "cmaxgt0orcmaxgt0": _peaks_above_zero,
}
"""Functions by the name that a recipe calls them."""


def register_resolvers() -> None:
    """Make the functions known to OmegaConf; calling it again changes nothing."""
    for name, function in RESOLVERS.items():
        OmegaConf.register_resolver(name, function, replace=True)

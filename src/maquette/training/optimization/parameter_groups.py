"""The parameter groups of an optimizer from the ``params`` of its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from maquette.core.errors import ConfigError
from maquette.training.craft.patterns import is_pattern, matching

KEY = "system.optimizer.params"
DECAYED = ("all", "matrices")
"""What may decay: every weight, or those with two dimensions and more that are no biases."""

Group = dict[str, Any]


def parameter_groups(model: nn.Module, params: Any = None, weight_decay_on: object = "all") -> list[Group]:
    """Groups for an optimizer, each named after its path.

    A parameter that several patterns match belongs to the first; a plain dotted path goes before all
    patterns.

    Args:
        model: whose parameters.
        params: dotted path, glob or ``re:REGEX`` to the options of its group; without it, one group of all
            trainable parameters.
        weight_decay_on: ``all``, or ``matrices``: biases and one-dimensional weights go into groups of their
            own, named ``.../no_decay``, whose weight decay is 0.

    Raises:
        ConfigError: a path matches nothing that is left, options are no mapping, or two paths overlap.
    """
    if weight_decay_on not in DECAYED:
        raise ConfigError("system.optimizer.weight_decay_on", weight_decay_on, "one of: all, matrices")
    groups = _given(model, params) if params else _all_trainable(model)
    named = groups if weight_decay_on == "all" else [part for one in groups for part in _split(one)]
    return [{**options, "params": list(options["params"].values())} for options in named]


def _all_trainable(model: nn.Module) -> list[Group]:
    return [{"params": {name: one for name, one in model.named_parameters() if one.requires_grad}}]


def _given(model: nn.Module, params: Any) -> list[Group]:
    """A group for each path, in the order of the recipe."""
    if not isinstance(params, Mapping):
        raise ConfigError(KEY, params, "a mapping of dotted paths to options such as {lr: 0.01}")
    owner: dict[int, str] = {}
    chosen = {}
    for path in sorted(params, key=lambda one: is_pattern(str(one))):
        found = matching(model, path, f"{KEY}.{path}")
        chosen[path] = {name: one for name, one in found.items() if id(one) not in owner}
        _check_claims(path, found, owner)
        owner |= {id(one): str(path) for one in chosen[path].values()}
    return [{"params": chosen[path], "name": str(path), **_options(path, params[path])} for path in params]


def _check_claims(path: object, found: Mapping[str, nn.Parameter], owner: Mapping[int, str]) -> None:
    """Raise a ConfigError where nothing is left for a pattern, or two plain paths overlap."""
    taken = {name: owner[id(one)] for name, one in found.items() if id(one) in owner}
    if taken and (not is_pattern(str(path)) or len(taken) == len(found)):
        name, other = next(iter(taken.items()))
        raise ConfigError(f"{KEY}.{path}", path, f"parameters of its own: {other} has {name} already")


def _options(path: object, given: Any) -> dict[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(f"{KEY}.{path}", given, "a mapping of options such as {lr: 0.01}")
    options = dict(given or {})
    for name in ("lr", "weight_decay", "eps"):
        value = options.get(name, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise ConfigError(f"{KEY}.{path}.{name}", value, "a number >= 0")
    return options


def _split(group: Group) -> list[Group]:
    """The group as one that decays and one that does not, as far as they hold anything."""
    exempt = {name: one for name, one in group["params"].items() if _never_decays(name, one)}
    decayed = {name: one for name, one in group["params"].items() if name not in exempt}
    rest = {**group, "params": exempt, "weight_decay": 0.0}
    if decayed and exempt:
        named = group.get("name", "all")
        return [{**group, "params": decayed, "name": named}, {**rest, "name": f"{named}/no_decay"}]
    return [{**group, "params": decayed}] if decayed else [rest]


def _never_decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim < 2 or name.rpartition(".")[2] == "bias"

"""What any key of a recipe means: ``system.geometry.radius``, ``training.ema.decay``."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from maquette.apps.field_docs import (
    FieldDoc,
    config_docs,
    dataclass_of,
    field_docs,
    nested_docs,
    plain_text,
    type_text,
)
from maquette.core.config import ExperimentConfig
from maquette.core.errors import ConfigError, UnknownKeyError
from maquette.core.registry import registry


@dataclasses.dataclass(frozen=True)
class Option:
    """One key of a recipe, as the module that reads it explains it."""

    path: str
    """The whole dotted key."""
    owner: str
    """Who reads it."""
    doc: FieldDoc
    """Its type, default and text."""
    value: Any = None
    """What the recipe says."""
    inner: Sequence[FieldDoc] = ()
    """What a mapping of options holds."""


def find_option(path: str, cfg: ExperimentConfig) -> Option:
    """The option at a dotted path of a recipe.

    Raises:
        UnknownKeyError: there is no such option; near ones are named.
        ConfigError: the recipe does not say which module would read it.
    """
    head, _, rest = path.partition(".")
    if not rest:
        return _of_config(path, head, ExperimentConfig, "every recipe", cfg.to_dict().get(head))
    value = _value(cfg.to_dict(), path)
    if head in ("trainer", "checkpoint"):
        from maquette.training.library_blocks import LIBRARY_BLOCKS

        owner, function, text = LIBRARY_BLOCKS[head]
        return Option(path, owner, _of_arguments(path, rest, function, text), value)
    if head == "training":
        from maquette.training.config import TrainingConfig

        return _of_config(path, rest, TrainingConfig, "the engine", value)
    return _of_module(path, head, rest, cfg, value)


def _of_module(path: str, head: str, rest: str, cfg: ExperimentConfig, value: Any) -> Option:
    """An option of the data module, the system, or one of the system's parts."""
    part, _, inner = rest.partition(".")
    of_part = head == "system" and inner and f"{part}_type" in cfg.system
    type_key, key = (f"system.{part}_type", inner) if of_part else (f"{head}_type", rest)
    name = _value(cfg.to_dict(), type_key)
    if not name:
        raise ConfigError(type_key, name, "the name of a module, in the recipe")
    module = registry.find(name)
    config = getattr(module, "Config", None)
    if config is None:
        raise UnknownKeyError(path, [], [])
    return _of_config(path, key, config, name, value)


def _of_config(path: str, key: str, config: type, owner: str, value: Any) -> Option:
    """A field of a dataclass, or of one that a field of it holds."""
    docs = {one.name: one for one in config_docs(config)}
    first, _, inner = key.partition(".")
    if first not in docs:
        known = list(docs)
        raise UnknownKeyError(path.removesuffix(key) + first, get_close_matches(first, known, n=3), known)
    inside = dataclass_of(config, first)
    if inner and inside is not None:
        return _of_config(path, inner, inside, owner, value)
    return Option(path, owner, docs[first], value, nested_docs(config, first))


def _of_arguments(path: str, name: str, function: Any, text: str) -> FieldDoc:
    """An argument of a function whose docstring has an ``Args:`` block."""
    parameters = {key: one for key, one in inspect.signature(function).parameters.items() if key != "self"}
    key = name.partition(".")[0]
    if key not in parameters:
        known = list(parameters)
        raise UnknownKeyError(path.removesuffix(name) + key, get_close_matches(key, known, n=3), known)
    parameter = parameters[key]
    found = re.search(rf"^ +{key}: (.*?)(?=^ +\w+: |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    words = plain_text(" ".join(found.group(1).split())) if found else ""
    return FieldDoc(key, type_text(parameter.annotation), repr(parameter.default), words)


def _value(content: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(content, dict) or key not in content:
            return None
        content = content[key]
    return content


def modules_with(key: str) -> list[str]:
    """Registered modules that have an option of this name."""
    return [
        name for name in registry.names() if any(one.name == key for one in field_docs(registry.find(name)))
    ]

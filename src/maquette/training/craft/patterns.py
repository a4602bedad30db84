"""Parameters and modules of a model by dotted path, glob or regular expression."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from maquette.core.errors import ConfigError

REGEX = "re:"
"""How a pattern begins that is a regular expression."""

_WILD = "*?["


def is_pattern(path: str) -> bool:
    """Whether ``path`` is a glob or a regular expression, and not a plain dotted path."""
    return path.startswith(REGEX) or any(mark in path for mark in _WILD)


def matching(model: nn.Module, path: object, key: str) -> dict[str, nn.Parameter]:
    """Parameters by qualified name.

    Args:
        model: where they are looked for.
        path: a dotted path of a module or parameter (``geometry.encoding``); a glob over parameters and the
            modules that hold them (``geometry.*network``, ``*.bias``; a star also stands for dots); or, after
            ``re:``, a regular expression that is searched for in the names of parameters.
        key: the key of the recipe that ``path`` is from, for the messages.

    Raises:
        ConfigError: nothing matches, or what does has no parameters.
    """
    if not isinstance(path, str) or not path:
        raise ConfigError(key, path, "a dotted path, a glob such as *.bias, or re:REGEX")
    matches = _by_pattern(model, path, key) if is_pattern(path) else _by_path(model, path)
    if matches:
        return matches
    raise ConfigError(
        key,
        path,
        f"a module or a parameter that can be optimised; near: {', '.join(_near(path, _trainable(model)))}",
    )


def module_at(model: nn.Module, path: object, key: str) -> nn.Module:
    """The module at a dotted path, also below parts that are no modules themselves.

    Raises:
        ConfigError: there is none.
    """
    found = _walk(model, path) if isinstance(path, str) and path else None
    if isinstance(found, nn.Module) and found is not model:
        return found
    names = [name for name, _ in model.named_modules() if name]
    raise ConfigError(key, path, f"a module; near: {', '.join(_near(str(path), names))}")


def _by_path(model: nn.Module, path: str) -> dict[str, nn.Parameter]:
    found = _walk(model, path)
    if isinstance(found, nn.Parameter):
        return {path: found}
    if isinstance(found, nn.Module):
        return {f"{path}.{name}": parameter for name, parameter in found.named_parameters()}
    return {}


def _by_pattern(model: nn.Module, pattern: str, key: str) -> dict[str, nn.Parameter]:
    named = dict(model.named_parameters())
    if not pattern.startswith(REGEX):
        return {name: one for name, one in named.items() if _glob_fits(name, pattern)}
    try:
        expression = re.compile(pattern.removeprefix(REGEX))
    except re.error as err:
        raise ConfigError(key, pattern, f"a regular expression that is complete ({err})") from err
    return {name: one for name, one in named.items() if expression.search(name)}


def _glob_fits(name: str, pattern: str) -> bool:
    return any(fnmatchcase(prefix, pattern) for prefix in _prefixes(name))


def _walk(model: nn.Module, path: str) -> Any:
    found: Any = model
    for part in path.split("."):
        try:
            found = getattr(found, part, None)
        except RuntimeError:  # a Lightning module refuses to name its trainer before it has one
            return None
    return found


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[: n + 1]) for n in range(len(parts)))


def _trainable(model: nn.Module) -> set[str]:
    named = model.named_parameters()
    return {prefix for name, one in named if one.requires_grad for prefix in _prefixes(name)}


def _near(path: str, names: Iterable[str]) -> list[str]:
    ordered = sorted(names)
    return difflib.get_close_matches(path, ordered, n=3, cutoff=0.4) or ordered[:5]

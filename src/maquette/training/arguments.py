"""Blocks of a recipe that are the keyword arguments of a library's class: mistakes are told by their key."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, get_args, get_type_hints

from torch import Tensor

from maquette.core.errors import ConfigError, UnknownKeyError
from maquette.core.structured import type_name
from maquette.core.typecheck import accepts

T = TypeVar("T")
Refusals = tuple[type[Exception], ...]


def check_arguments(key: str, make: type, args: Mapping[str, Any], filled: Collection[str] = ()) -> None:
    """Compare arguments with the signature of the class that takes them; what it would swallow is unknown.

    Args:
        key: of the block, such as ``system.optimizer.args``.
        make: the class.
        args: the block.
        filled: parameters that the engine fills itself.

    Raises:
        UnknownKeyError: there is no such parameter.
        ConfigError: one without a default is missing, or has a text, a mapping or null that it does not take.
    """
    parameters = {name: one for name, one in inspect.signature(make).parameters.items() if name not in filled}
    known = [name for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD]
    for name in args:
        if name not in known:
            raise UnknownKeyError(f"{key}.{name}", near_arguments(str(name), known), known)
    hints = _hints(make)
    for name in known:
        where, hint = f"{key}.{name}", hints.get(name, Any)
        if name not in args and parameters[name].default is inspect.Parameter.empty:
            expected = _words(hint, f"a value: {make.__name__} needs it")
            raise ConfigError(where, None, expected, f"give it: {where}=...")
        value = args.get(name, parameters[name].default)
        if value is not parameters[name].default and _is_plain(value) and not accepts(hint, value):
            raise ConfigError(where, value, _words(hint))


def _is_plain(value: Any) -> bool:
    """Whether nothing converts it: a list may stand for a tuple, and a whole number for any number."""
    return value is None or isinstance(value, str | Mapping)


def near_arguments(name: str, known: Collection[str]) -> list[str]:
    """Names that look like one, or shorten it: ``lr`` for ``learning_rate``, ``eps`` for ``epsilon``."""
    initials = "".join(word[:1] for word in name.split("_"))
    short = [one for one in known if one == initials or name.startswith(one)]
    return list(dict.fromkeys([*short, *difflib.get_close_matches(name, known, n=3)]))


def called(key: str, name: str, make: Callable[..., T], args: Mapping[str, Any], refusals: Refusals) -> T:
    """``make(**args)``.

    Args:
        key: of the block.
        name: what the library calls it.
        make: is called again without each argument in turn, to find the one that is refused.
        args: the block.
        refusals: what the library raises at values that it does not take.

    Raises:
        ConfigError: it was refused.
    """
    try:
        return make(**args)
    except refusals as err:
        wrong = culprit(make, args, refusals)
        if wrong is None:
            raise ConfigError(key, dict(args), f"arguments that {name} accepts ({err})") from err
        raise ConfigError(f"{key}.{wrong}", args[wrong], f"a value that {name} accepts ({err})") from err


def culprit(make: Callable[..., object], args: Mapping[str, Any], refusals: Refusals) -> str | None:
    """The one argument without which a call that was refused succeeds, if there is one."""

    def succeeds(without: str) -> bool:
        try:
            make(**{name: value for name, value in args.items() if name != without})
        except refusals:
            return False
        return True

    found = [name for name in args if succeeds(name)]
    return found[0] if len(found) == 1 else None


def _hints(make: type) -> dict[str, Any]:
    """The annotations of the constructor; none where they name what is imported for type checkers only."""
    try:
        return get_type_hints(make.__init__)  # type: ignore[misc]
    except NameError:
        return {}


def _words(hint: Any, otherwise: str = "another value") -> str:
    """What an annotation accepts, in words; a recipe holds no tensors."""
    if hint is Any:
        return otherwise
    options = [one for one in get_args(hint) if one is not Tensor] if Tensor in get_args(hint) else [hint]
    return " or ".join(map(type_name, options))

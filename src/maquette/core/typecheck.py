"""Checking shapes and types of every annotated call while the program runs; slow, for tests and debugging."""

from collections.abc import Callable
from typing import Any, TypeVar

from beartype import BeartypeConf, beartype
from beartype.door import is_bearable
from beartype.roar import BeartypeDecorHintException
from jaxtyping import install_import_hook

CHECKED_ROOMS = ("ops", "io", "diffusion", "data", "models", "training", "systems", "evaluation")
"""Rooms that are checked: not `core`, which is loaded before, nor `kernels`, which Warp compiles."""

F = TypeVar("F", bound=Callable[..., Any])

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: F) -> F:
    """`function` with its arguments checked at each call; unchanged where beartype cannot read an annotation.

    A whole number is accepted where a float is asked for.
    """
    try:
        return _beartype(function)
    except BeartypeDecorHintException:
        return function


def accepts(hint: Any, value: Any) -> bool:
    """Whether an annotation allows a value."""
    return is_bearable(value, hint)


def install_typecheck() -> None:
    """Check every module of the rooms that is imported from now on."""
    install_import_hook([f"maquette.{room}" for room in CHECKED_ROOMS], f"{__name__}.checked")

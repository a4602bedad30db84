"""Mistakes in the arguments of a library's class are told by their key, in our words."""

from functools import partial
from typing import Any, Literal

import pytest
from torch import Tensor

from maquette.core.errors import ConfigError, UnknownKeyError
from maquette.training.arguments import called, check_arguments, near_arguments


class Library:
    """What a recipe configures."""

    def __init__(
        self,
        owner: object,
        size: int,
        lr: float | Tensor = 1.0,
        mode: Literal["min", "max"] = "min",
        span: tuple[float, float] = (0.0, 1.0),
        late: float = None,  # type: ignore[assignment] # noqa: RUF013
        **rest: Any,
    ) -> None:
        if lr == size:
            raise ValueError("lr is size")


def check(**args: Any) -> None:
    check_arguments("block", Library, args, filled=("owner",))


def test_what_the_class_takes_is_let_through() -> None:
    check(size=3, lr=2, mode="max", span=[0, 1], late=None)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            {},
            r"value for block\.size\.\n.*\n  expected: a whole number\n  Hint: give it: block\.size=\.\.\.$",
        ),
        ({"size": "x"}, r"block\.size\.\n  got: 'x' \(str\)\n  expected: a whole number$"),
        ({"size": 1, "lr": "x"}, r"block\.lr\.\n.*\n  expected: a number$"),
        ({"size": 1, "lr": None}, r"block\.lr\.\n  got: None"),
        ({"size": 1, "lr": {"a": 1}}, r"block\.lr\."),
        ({"size": 1, "mode": "mn"}, r"block\.mode\.\n.*\n  expected: one of min, max$"),
    ],
)
def test_wrong_values_are_told_by_their_key(args: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check(**args)


@pytest.mark.parametrize(("name", "near"), [("learning_rate", "lr"), ("sise", "size"), ("model", "mode")])
def test_unknown_ones_are_told_with_near_ones(name: str, near: str) -> None:
    with pytest.raises(
        UnknownKeyError, match=rf"Unknown key block\.{name}\.\n.*did you mean block\.{near}\?"
    ):
        check(size=1, **{name: 1})


@pytest.mark.parametrize("name", ["owner", "rest", "whatever"])
def test_what_the_engine_fills_is_not_known(name: str) -> None:
    with pytest.raises(UnknownKeyError, match=r"block accepts: size, lr, mode, span, late$"):
        check(size=1, **{name: 1})


def test_short_names_are_near_long_ones() -> None:
    assert near_arguments("epsilon", ["lr", "eps", "betas"]) == ["eps"]
    assert near_arguments("learning_rates", ["momentum", "lr"]) == ["lr"]


def test_the_argument_that_a_class_refuses_is_told() -> None:
    def call(**args: Any) -> Library:
        return called("block", "Library", partial(Library, None), args, (ValueError, TypeError))

    assert isinstance(call(size=3, mode="min"), Library)
    with pytest.raises(
        ConfigError, match=r"block\.lr\.\n  got: 3 .*\n  expected: a value that Library accepts \(lr"
    ):
        call(size=3, lr=3, mode="min")
    with pytest.raises(ConfigError, match=r"value for block\.\n"):  # the size, but it has no default
        call(size=1, lr=1.0, late=2.0)

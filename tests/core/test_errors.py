"""Errors are one screen of text and survive the way to another process."""

import pickle

import pytest

from maquette.core import errors
from maquette.core.optional import require

ALL = [
    errors.RunFailed("The disk is full.", ["12 MB left"], "free some space"),
    errors.CollapseError("the density is zero everywhere", ["max 0.0"]),
    errors.ConfigError("system.geometry.radius", -1, "a number above zero"),
    errors.UnknownKeyError("system.geometry.radis", ["radius"], ["radius", "weights"]),
    errors.UnknownNameError("geometry", "implicit-volum", ["implicit-volume"]),
    errors.MissingBackendError("gradio", "pip install 'maquette[app]'"),
    errors.MissingFileError("nowhere.yaml", "recipe"),
    errors.ModelUnavailableError("a/b", "it is gated", ["maquette/toyworld"]),
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_text_exit_code_and_pickling(error):
    assert error.exit_code == (2 if isinstance(error, errors.UserError) else 1)
    assert len(str(error).splitlines()) <= 5
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_config_error_names_key_value_and_what_was_expected():
    text = str(errors.ConfigError("a.b", [1], "a number", "write a.b=1"))
    assert text.splitlines() == [
        "Wrong value for a.b.",
        "  got: [1] (list)",
        "  expected: a number",
        "  Hint: write a.b=1",
    ]


def test_a_long_value_is_cut():
    assert len(str(errors.ConfigError("a", "x" * 10000, "less"))) < 400


def test_require_names_the_extra():
    assert require("json", "app").loads("1") == 1
    with pytest.raises(errors.MissingBackendError, match=r"pip install 'maquette\[app\]'"):
        require("maquette_has_no_such_package", "app")

"""Messages, progress events and the run-time type check."""

import logging
import os

import pytest

from maquette.core.log import get_logger, is_set_here, set_library_verbosity, setup_logging, warn_once
from maquette.core.progress import ProgressEvent
from maquette.core.typecheck import checked


@pytest.fixture
def _own_logger():
    logger = logging.getLogger("maquette")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def test_loggers_are_below_ours():
    assert get_logger("maquette.io.mesh").name == "maquette.io.mesh"
    assert get_logger("my_extension").name == "maquette.my_extension"


@pytest.mark.usefixtures("_own_logger")
def test_setting_up_again_replaces_the_handler():
    first, second = logging.NullHandler(), logging.NullHandler()
    setup_logging(handler=first)
    logger = setup_logging(verbose=True, handler=second)
    assert logger.handlers == [second]
    assert logger.level == logging.DEBUG


def test_libraries_are_quiet_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "debug")
    for verbose, level in ((False, "error"), (True, "info")):
        monkeypatch.delenv("DIFFUSERS_VERBOSITY", raising=False)
        set_library_verbosity(verbose)
        assert (os.environ["DIFFUSERS_VERBOSITY"], os.environ["TRANSFORMERS_VERBOSITY"]) == (level, "debug")
    assert is_set_here("DIFFUSERS_VERBOSITY") and not is_set_here("TRANSFORMERS_VERBOSITY")
    monkeypatch.setenv("DIFFUSERS_VERBOSITY", "critical")
    assert not is_set_here("DIFFUSERS_VERBOSITY")


def test_warn_once(caplog):
    for _ in range(3):
        warn_once("a message of the test of warn_once")
    assert caplog.messages == ["a message of the test of warn_once"]


def test_fraction_of_progress():
    assert ProgressEvent(5, 20, 1.0, 15.0, "train").fraction == 0.25
    assert ProgressEvent(5, 0, 1.0, None, "train").fraction is None


def test_checked_refuses_wrong_types_and_takes_whole_numbers_for_floats():
    @checked
    def half(value: float) -> float:
        return value / 2

    assert half(3) == 1.5
    with pytest.raises(Exception, match="half"):
        half("3")


def test_checked_leaves_annotations_alone_that_cannot_be_read():
    def odd(value: "no such type") -> int:
        return value

    assert checked(odd)(3) == 3

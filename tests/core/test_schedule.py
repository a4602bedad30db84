"""Schedules: every list form of the ecosystem, on the clock that each breakpoint names."""

import math

import pytest
from omegaconf import OmegaConf

from maquette.core.errors import ConfigError
from maquette.core.schedule import C, Schedule


def test_a_number_is_constant():
    schedule = Schedule.parse(3)
    assert [schedule.at(step) for step in (0, 10**9)] == [3.0, 3.0]


@pytest.mark.parametrize("value", [[10.0, 1000.0, 5000], [0, 10.0, 1000.0, 5000], (0, 10.0, 1000.0, 5000)])
def test_ramp(value):
    schedule = Schedule.parse(value)
    assert [schedule.at(step) for step in (0, 2500, 5000, 9999)] == [10.0, 505.0, 1000.0, 1000.0]
    assert schedule.maximum == 1000.0


def test_an_omegaconf_list_is_a_list():
    assert Schedule.parse(OmegaConf.create([0, 1.0, 2.0, 10])) == Schedule.parse([0, 1.0, 2.0, 10])


def test_it_starts_late():
    schedule = Schedule.parse([100, 7.0, 5.0, 150, 10.0, 200])
    assert [schedule.at(step) for step in (0, 100, 125, 150, 175, 200, 300)] == [7, 7, 6, 5, 7.5, 10, 10]


def test_a_step_function_takes_one_step():
    schedule = Schedule.parse([5000, 0.98, 0.5, 5001])
    assert [schedule.at(step) for step in (4999, 5000, 5001)] == [0.98, 0.98, 0.5]


def test_a_segment_without_length_jumps():
    schedule = Schedule.parse([0, 1.0, 2.0, 10, 5.0, 10, 6.0, 20])
    assert [schedule.at(step) for step in (9, 10, 15, 20)] == [pytest.approx(1.9), 5.0, 5.5, 6.0]
    assert Schedule.parse([10, 1.0, 2.0, 10]).at(9) == 1.0
    assert Schedule.parse([10, 1.0, 2.0, 10]).at(10) == 2.0


def test_a_float_breakpoint_counts_epochs():
    schedule = Schedule.parse([0, 0.0, 1.0, 4.0])
    assert schedule.at(step=10**6, epoch=1) == 0.25
    assert schedule.at(step=0, epoch=4) == 1.0


def test_steps_first_and_epochs_later():
    schedule = Schedule.parse([0, 0.0, 1.0, 100, 3.0, 10.0])
    assert schedule.at(step=50, epoch=0) == 0.5
    assert schedule.at(step=1000, epoch=10) == 3.0


def test_exponential_is_linear_in_the_logarithm():
    schedule = Schedule.parse([0, 1.0, 100.0, 10], interpolation="exp")
    assert schedule.at(5) == pytest.approx(10.0)
    assert math.log10(schedule.at(2)) == pytest.approx(0.4)


def test_c_is_the_ecosystems_name():
    assert C([0, 10.0, 1000.0, 5000], 0, 2500) == 505.0
    assert C(0.25, 3, 9) == 0.25


NO_NUMBERS = ("0.5", True, None, {"a": 1}, [0, "a", 1, 2], [0, 1.0, float("nan"), 2])
WRONG_LENGTHS = ([], [1.0], [1.0, 2.0], [0, 1, 2, 3, 4])


@pytest.mark.parametrize("value", NO_NUMBERS + WRONG_LENGTHS, ids=str)
def test_anything_else_is_refused_by_its_key(value):
    with pytest.raises(ConfigError) as caught:
        Schedule.parse(value, key="system.loss.lambda_sds")
    assert caught.value.key == "system.loss.lambda_sds"


def test_breakpoints_must_grow():
    with pytest.raises(ConfigError, match="growing"):
        Schedule.parse([10, 1.0, 2.0, 5])


def test_exponential_needs_positive_values():
    with pytest.raises(ConfigError, match="above zero"):
        Schedule.parse([0, 0.0, 1.0, 10], interpolation="exp")

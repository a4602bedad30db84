from typing import Any

import pytest

from maquette.core.errors import ConfigError
from maquette.training.durations import seconds_of


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(None, None), (90, 90.0), ("90", 90.0), ("1.5m", 90.0), ("1h30m", 5400.0), ("1D", 86400.0)],
)
def test_durations(given: Any, seconds: float | None) -> None:
    assert seconds_of("training.time_budget", given) == seconds


@pytest.mark.parametrize("given", [0, -3, "soon", "1h later", True, "nan", "inf", [3]])
def test_durations_that_are_none(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"training\.time_budget"):
        seconds_of("training.time_budget", given)

"""Durations as a recipe gives them: 90, 45s, 90m, 1h30m."""

from __future__ import annotations

import re

from maquette.core.errors import ConfigError

UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
DURATION = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+")
PART = re.compile(r"(\d+(?:\.\d+)?)([dhms])")


def seconds_of(key: str, value: object) -> float | None:
    """A duration in seconds: a number of them, a text such as 1h30m, 90m or 45s; None for None.

    Raises:
        ConfigError: it is something else, or not above zero.
    """
    if value is None:
        return None
    text = str(value).replace(" ", "").lower()
    if isinstance(value, str) and DURATION.fullmatch(text):
        seconds = sum(float(number) * UNITS[unit] for number, unit in PART.findall(text))
    else:
        try:
            seconds = float("nan") if isinstance(value, bool) else float(text)
        except ValueError:
            seconds = float("nan")
    if not 0 < seconds < float("inf"):
        raise ConfigError(key, value, "seconds above zero, or a text such as 45s, 90m or 1h30m")
    return seconds

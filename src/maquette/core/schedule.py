"""A number that may change while training: a constant, or the ecosystem's list of breakpoints."""

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

from omegaconf import ListConfig

from maquette.core.errors import ConfigError

Interpolation = Literal["linear", "exp"]

EXPECTED = "a number, or a list [s0, v0, v1, s1, v2, s2, ...] of values v at breakpoints s (or [v0, v1, s1])"


class Schedule:
    """A piecewise function of the step and the epoch, constant before the first and after the last
    breakpoint.

    A breakpoint written as an int counts optimiser steps, one written as a float counts epochs. An instance
    never changes.

    Args:
        times: breakpoints; a constant has one.
        counts_epochs: for each breakpoint, whether it counts epochs.
        values: value at each breakpoint.
        interpolation: a straight line between two breakpoints, or ("exp") one in the logarithm of the value.
    """

    # No dataclass: OmegaConf would take it for a configuration of its own.
    __slots__ = ("counts_epochs", "interpolation", "times", "values")

    def __init__(
        self,
        times: Sequence[float],
        counts_epochs: Sequence[bool],
        values: Sequence[float],
        interpolation: Interpolation = "linear",
    ) -> None:
        self.times = tuple(float(time) for time in times)
        self.counts_epochs = tuple(counts_epochs)
        self.values = tuple(float(value) for value in values)
        self.interpolation = interpolation

    def __repr__(self) -> str:
        unit = ["epoch" if epochs else "step" for epochs in self.counts_epochs]
        points = ", ".join(
            f"{v:g} at {u} {t:g}" for t, u, v in zip(self.times, unit, self.values, strict=True)
        )
        return f"Schedule({f'{self.values[0]:g}' if len(self.values) == 1 else points})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    def __hash__(self) -> int:
        return hash((self.times, self.counts_epochs, self.values, self.interpolation))

    @classmethod
    def parse(cls, value: Any, interpolation: Interpolation = "linear", key: str = "schedule") -> Self:
        """Read a number, a Schedule, or a list `[v0, v1, s1]`, `[s0, v0, v1, s1]`, `[s0, v0, v1, s1, v2, s2,
        ...]`.

        Raises:
            ConfigError: anything else, named by `key`.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, list | tuple | ListConfig):
            return cls._parse_list(list(value), interpolation, key)
        if not _is_number(value):
            raise ConfigError(key, value, EXPECTED)
        return cls((0.0,), (False,), (value,), interpolation)

    @classmethod
    def _parse_list(cls, items: list[Any], interpolation: Interpolation, key: str) -> Self:
        if not all(_is_number(item) for item in items):
            raise ConfigError(key, items, EXPECTED)
        if len(items) == 3:
            items = [0, *items]
        if len(items) < 4 or len(items) % 2:
            raise ConfigError(key, items, EXPECTED)
        times = [items[0], *items[3::2]]
        values = [items[1], *items[2::2]]
        _check(times, values, interpolation, key, items)
        # The first breakpoint is on the clock of the segment that it opens.
        epochs = [isinstance(times[1], float), *(isinstance(time, float) for time in times[1:])]
        return cls(times, epochs, values, interpolation)

    def at(self, step: int, epoch: int = 0) -> float:
        """The value at an optimiser step (and epoch)."""
        passed = 0
        for i in range(len(self.times)):
            if (epoch if self.counts_epochs[i] else step) >= self.times[i]:
                passed = i + 1
        if passed == 0:
            return self.values[0]
        if passed == len(self.times):
            return self.values[-1]
        now = epoch if self.counts_epochs[passed] else step
        return self._between(passed - 1, now)

    def _between(self, segment: int, now: float) -> float:
        start, end = self.times[segment], self.times[segment + 1]
        first, last = self.values[segment], self.values[segment + 1]
        t = min(max((now - start) / (end - start), 0.0), 1.0)
        if self.interpolation == "exp":
            return math.exp(math.log(first) * (1.0 - t) + math.log(last) * t)
        return first * (1.0 - t) + last * t

    @property
    def maximum(self) -> float:
        """The largest value it ever takes."""
        return max(self.values)


def C(value: Any, epoch: int, step: int, interpolation: Interpolation = "linear") -> float:
    """The value of a schedule at an epoch and a step, by the name that this ecosystem gives it."""
    return Schedule.parse(value, interpolation).at(step=step, epoch=epoch)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check(
    times: Sequence[float], values: Sequence[float], interpolation: str, key: str, got: list[Any]
) -> None:
    if interpolation not in ("linear", "exp"):
        raise ConfigError(f"{key}.interpolation", interpolation, "linear or exp")
    if interpolation == "exp" and min(values) <= 0:
        raise ConfigError(key, got, "values above zero, because they are interpolated in the logarithm")
    if len({isinstance(time, float) for time in times[1:]}) == 1 and sorted(times) != list(times):
        raise ConfigError(key, got, "breakpoints in growing order")

"""The memory of some steps as a page for a browser: a curve, and what was alive at its highest point."""

from __future__ import annotations

import bisect
import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 960, 300
POINTS = 2000
"""Points of the curve; the highest one of each stretch is kept."""
ROWS = 20

PAGE = """<!doctype html><meta charset="utf-8"><title>memory</title>
<style>body{{font:14px sans-serif;margin:2em;max-width:60em}}td,th{{padding:.2em .8em;text-align:left}}
td:first-child{{text-align:right}}svg{{background:#f4f5f7}}</style>
{body}
"""


@dataclass(frozen=True)
class Allocation:
    """Memory taken (bytes > 0) or given back, on one device."""

    time: float
    """Microseconds."""
    address: int
    size: int
    total: int
    """Bytes in use after it."""


def memory_page(events: Iterable[Mapping[str, Any]]) -> str:
    """The page for the events of a Chrome trace that was recorded with memory."""
    events = list(events)
    body = "".join(
        _device(name, sorted(found, key=lambda one: one.time), events)
        for name, found in allocations(events).items()
    )
    return PAGE.format(body=body or "<p>No memory was taken in these steps.</p>")


def allocations(events: Iterable[Mapping[str, Any]]) -> dict[str, list[Allocation]]:
    """The allocations of a trace, by device."""
    found: dict[str, list[Allocation]] = {}
    for event in events:
        if event.get("name") != "[memory]":
            continue
        facts = event["args"]
        name = "host" if facts["Device Type"] == 0 else f"GPU {facts['Device Id']}"
        one = Allocation(event["ts"], facts["Addr"], facts["Bytes"], facts["Total Allocated"])
        found.setdefault(name, []).append(one)
    return found


def alive_at_peak(found: Sequence[Allocation]) -> tuple[float, list[Allocation]]:
    """When most was in use, and what had been taken since the recording began, and not given back."""
    level, highest, peak = 0, 0, 0
    for index, one in enumerate(found):
        level += one.size
        if level > highest:
            highest, peak = level, index
    living: dict[int, Allocation] = {}
    for one in found[: peak + 1]:
        if one.size > 0:
            living[one.address] = one
        else:
            living.pop(one.address, None)
    return found[peak].time, list(living.values())


def _device(name: str, found: Sequence[Allocation], events: Sequence[Mapping[str, Any]]) -> str:
    when, living = alive_at_peak(found)
    makers = _Makers(events)
    size: Counter[str] = Counter()
    for one in living:
        size[makers.at(one.time)] += one.size
    rows = "".join(
        f"<tr><td>{taken / 2**20:.2f}</td><td>{html.escape(maker)}</td></tr>"
        for maker, taken in size.most_common(ROWS)
    )
    return (
        f"<h2>{name}</h2>{_curve(found, when)}"
        f"<h3>taken in these steps and alive at the highest point</h3>"
        f"<table><tr><th>MiB</th><th>by</th></tr>{rows}</table>"
    )


def _curve(found: Sequence[Allocation], peak: float) -> str:
    level, points = 0, []
    for one in found:
        level += one.size
        points.append((one.time, level))
    stride = max(1, len(points) // POINTS)
    kept = [max(points[i : i + stride], key=lambda one: one[1]) for i in range(0, len(points), stride)]
    begin, end = points[0][0], max(points[-1][0], points[0][0] + 1)
    lowest, highest = min(0, *(y for _, y in kept)), max(1, *(y for _, y in kept))

    def x(time: float) -> float:
        return (time - begin) / (end - begin) * WIDTH

    def y(bytes_: float) -> float:
        return HEIGHT - (bytes_ - lowest) / (highest - lowest) * (HEIGHT - 20)

    line = " ".join(f"{x(time):.1f},{y(value):.1f}" for time, value in kept)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}">'
        f'<polyline points="{line}" fill="none" stroke="#2f6fb0"/>'
        f'<line x1="{x(peak):.1f}" x2="{x(peak):.1f}" y2="{HEIGHT}" stroke="#c33" stroke-dasharray="3"/>'
        f"</svg><p>{(end - begin) / 1e3:.1f} ms; {highest / 2**20:.1f} MiB above the beginning at most</p>"
    )


class _Makers:
    """Which part of the step, and which operation of PyTorch, runs at a moment."""

    def __init__(self, events: Iterable[Mapping[str, Any]]) -> None:
        spans = [event for event in events if event.get("ph") == "X"]
        self.operations = _Spans(one for one in spans if one.get("cat") == "cpu_op")
        self.parts = _Spans(one for one in spans if str(one["name"]).startswith("part: "))

    def at(self, time: float) -> str:
        """Both, as far as they are known."""
        part, operation = self.parts.innermost(time), self.operations.innermost(time)
        return ", ".join(one for one in (operation or "?", part) if one)


class _Spans:
    """Stretches of time with a name."""

    def __init__(self, events: Iterable[Mapping[str, Any]]) -> None:
        self.spans = sorted((one["ts"], one["ts"] + one.get("dur", 0), one["name"]) for one in events)
        self.begins = [span[0] for span in self.spans]

    def innermost(self, time: float, reach: int = 400) -> str | None:
        """The one that began last before ``time`` and lasts beyond it; looks back over ``reach`` others."""
        last = bisect.bisect_right(self.begins, time)
        for begin, end, name in reversed(self.spans[max(0, last - reach) : last]):
            if begin <= time <= end:
                return str(name)
        return None

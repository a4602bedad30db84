"""``maquette show run``: what a run did, read from what it left; also of one that goes on, or broke."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from maquette.core.errors import MissingFileError
from maquette.io.data import read_json

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 40
"""Characters of a sparkline."""
FACTS = ("status", "global_step", "last_loss", "finished", "seed", "peak_memory_gb")


def show_run(folder: Path, console: Console) -> None:
    """Print the summary of a run.

    Raises:
        MissingFileError: the folder is not one of a run.
    """
    if not (folder / "config.yaml").is_file() and not (folder / "run.json").is_file():
        raise MissingFileError(folder / "config.yaml", "recipe of the run", hint="give the folder of a run")
    record = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    console.print(Text(f"{record.get('name') or folder.name}", style="bold"))
    _print(console, "", _facts(folder, record))
    parts = sorted(folder.glob("stages/*")) or [folder]
    for part in parts:
        title = "losses" if part == folder else f"losses of stage {part.name}"
        _print(console, title, losses(part).items())
    _print(console, "seconds by phase", _seconds(record.get("seconds", {})))
    _print(console, "a step", _shares(record.get("step_seconds", {})))
    _print(console, "files", [(path.name, _size(path)) for path in _files(folder, record)])
    _print(console, "machine", record.get("machine", {}).items())
    _print(console, "versions", record.get("versions", {}).items())


def losses(folder: Path) -> dict[str, str]:
    """Each loss that the logs hold: its course, and from what to what."""
    found: dict[str, list[float]] = {}
    for path in sorted(folder.glob("csv_logs/*/metrics.csv"), key=lambda path: path.stat().st_mtime):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if name and name.startswith("train/loss") and value:
                        found.setdefault(name.removeprefix("train/"), []).append(float(value))
    return {
        name: f"{sparkline(values)}  {values[0]:.4g} to {values[-1]:.4g}" for name, values in found.items()
    }


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """A curve of one line; what is not finite is a cross. Long curves are averaged to ``width``."""
    groups = [
        values[index * len(values) // width : (index + 1) * len(values) // width] for index in range(width)
    ]
    means = [sum(one) / len(one) for one in groups if one] if len(values) > width else list(values)
    finite = [one for one in means if math.isfinite(one)]
    if not finite:
        return "x" * len(means)
    low, span = min(finite), max(finite) - min(finite)
    return "".join(
        BARS[round((one - low) / span * (len(BARS) - 1)) if span else 0] if math.isfinite(one) else "x"
        for one in means
    )


def status(folder: Path, record: Mapping[str, Any]) -> str:
    """What became of a run: as it wrote itself, or broken, or neither."""
    if record:
        return str(record["status"])
    if (folder / "error.log").is_file():
        return "broken, see error.log"
    return "not finished: it goes on, or was killed; launch --resume continues it"


def _facts(folder: Path, record: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown = {name: record[name] for name in FACTS if record.get(name) is not None}
    shown["status"] = status(folder, record)
    command = folder / "cmd.txt"
    if command.is_file():
        shown["command"] = command.read_text(encoding="utf-8").strip()
    for checkpoint in sorted(folder.glob("ckpts/*.ckpt")):
        shown[f"ckpts/{checkpoint.name}"] = _size(checkpoint)
    return [
        (name, f"{value:.6g}" if isinstance(value, float) else str(value)) for name, value in shown.items()
    ]


def _seconds(seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    return [(name, f"{value:8.1f}") for name, value in seconds.items()]


def _shares(parts: Mapping[str, float]) -> list[tuple[str, str]]:
    total = sum(parts.values())
    return [(name, f"{1e3 * value:8.2f} ms {value / total:6.1%}") for name, value in parts.items()]


def _files(folder: Path, record: Mapping[str, Any]) -> list[Path]:
    named = [folder / name for name in record.get("files", [])]
    return [path for path in (*named, *sorted(folder.glob("profiling/*"))) if path.is_file()]


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"


def _print(console: Console, title: str, rows: Iterable[tuple[Any, Any]]) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(str(name)), Text(str(value)))
    if table.row_count:
        console.print(*([Text(f"\n{title}", style="italic")] if title else []), table, sep="\n")

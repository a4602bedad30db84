"""What the engine costs: logs and callbacks on against off, and its own overhead in a step.

    python benchmarks/engine.py [--steps 200] [--rounds 3] [--recipe first-light] [key.path=value ...]

Whatever is done each N steps falls due as often as in any run of the recipe, and at least twice: where N is
more than half of the steps, it is half of them here, so that a short run is charged more than its share and a
ratio within the limit is one. What was done in a run, and how often, is counted and printed.

Both kinds of run are done in turn, in one process; the first one, which compiles, does not count. The ratio
is of the medians of the times of optimisation (loading and export are the same work in both). Fails where a
limit is not met.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console
from rich.table import Table

from maquette.core.config import load_config
from maquette.training.callbacks.checkpoint import LastCheckpoint
from maquette.training.callbacks.collapse import CollapseWatch
from maquette.training.callbacks.growth import GrowthWatch
from maquette.training.callbacks.speed_log import SpeedLog
from maquette.training.config import training_config
from maquette.training.loggers.tensorboard import TensorBoard
from maquette.training.profiling.sections import PARTS
from maquette.training.run import run

MOST_OBSERVED = 1.05
"""Time with everything switched on, as a multiple of that with everything off."""
MOST_OVERHEAD = 0.03
"""Part of a step that is the engine's own: neither data, nor the model's work, nor the optimiser."""
OWN = ("engine", "callbacks")
ON = ("training.logging.histograms=[weights, gradients, activations]",)
OFF = (
    "training.loggers=[]", "training.logging.timing=false", "training.collapse.enabled=false",
    "training.growth.enabled=false", "training.checkpoint_every=1000000", "training.snapshot_code=false",
)  # fmt: skip
PERIODS = (
    "training.checkpoint_every", "training.logging.histograms_every", "training.collapse.every",
    "training.growth.every", "trainer.log_every_n_steps",
)  # fmt: skip
"""What says each how many steps something is done."""
DONE = {
    "checkpoints": (LastCheckpoint, "save"),
    "histograms": (TensorBoard, "log_histogram"),
    "looks at gradients": (CollapseWatch, "look"),
    "looks at all tensors": (GrowthWatch, "_look"),
    "rows of times": (SpeedLog, "_metrics"),
}
"""What is counted. A look at all tensors is left out where it would take more than 1 % of the time."""

console = Console()


def frequencies(args: argparse.Namespace) -> tuple[str, ...]:
    """The recipe's periods, none longer than half of the run."""
    cfg = load_config(args.recipe, [f"system.prompt_processor.prompt={args.prompt}", *args.overrides])
    trainer = SimpleNamespace(**{"log_every_n_steps": 50} | dict(cfg.trainer))
    blocks = SimpleNamespace(training=training_config(cfg), trainer=trainer)
    periods = {key: attrgetter(key)(blocks) for key in PERIODS}
    return tuple(f"{key}={min(every, max(1, args.steps // 2))}" for key, every in periods.items())


@contextmanager
def counting(counts: Counter[str]) -> Iterator[None]:
    """Count what is done inside the block."""
    originals = {name: getattr(owner, method) for name, (owner, method) in DONE.items()}

    def counted(name: str) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            counts[name] += 1
            return originals[name](*args, **kwargs)

        return call

    for name, (owner, method) in DONE.items():
        setattr(owner, method, counted(name))
    try:
        yield
    finally:
        for name, (owner, method) in DONE.items():
            setattr(owner, method, originals[name])


def measured(args: argparse.Namespace, folder: Path, settings: tuple[str, ...]) -> dict[str, object]:
    """`run.json` of one run."""
    always = [
        f"run_dir={folder}",
        f"trainer.max_steps={args.steps}",
        "training.finish=[]",
        "trainer.limit_val_batches=0",
    ]
    given = [f"system.prompt_processor.prompt={args.prompt}", *always, *settings, *args.overrides]
    listeners = [] if settings == OFF else [lambda event: None]
    run(load_config(args.recipe, given), "train", listeners=listeners)
    gc.collect()
    return json.loads((folder / "run.json").read_text())


def observed(args: argparse.Namespace, out: Path) -> tuple[float, dict[str, float]]:
    """Ratio of on to off, and the seconds of the parts of a step with everything on."""
    measured(args, out / "warm", OFF)
    on, counts = (*ON, *frequencies(args)), Counter[str]()
    console.print("on: " + ", ".join(on), markup=False)
    taken: dict[str, list[float]] = {"on": [], "off": []}
    parts: list[dict[str, float]] = []
    for index in range(args.rounds):
        for name, settings in (("on", on), ("off", OFF)):
            with counting(counts):
                record = measured(args, out / f"{name}-{index}", settings)
            taken[name].append(record["seconds"]["optimising"])
            parts += [record["step_seconds"]] if name == "on" else []
            done = ", ".join(f"{counts[what]} {what}" for what in DONE if counts[what])
            console.print(f"{name} {index}: {taken[name][-1]:.2f} s; {done or 'nothing else'}")
            counts.clear()
    middle = {name: statistics.median([one.get(name, 0.0) for one in parts]) for name in PARTS}
    return statistics.median(taken["on"]) / statistics.median(taken["off"]), middle


def table_of(parts: dict[str, float]) -> Table:
    """Where a step goes."""
    table = Table(title="a step", title_justify="left")
    for heading, justify in (("part", "left"), ("ms", "right"), ("share", "right")):
        table.add_column(heading, justify=justify)
    total = sum(parts.values())
    for name, seconds in parts.items():
        if seconds:
            table.add_row(name, f"{1e3 * seconds:.2f}", f"{seconds / total:.1%}")
    return table


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200, help="optimisation steps of a run (200)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind (3)")
    parser.add_argument("--recipe", default="first-light", help="recipe name or file (first-light)")
    parser.add_argument("--prompt", default="a red mushroom")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="changes to the recipe")
    args = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as out:
        ratio, parts = observed(args, Path(out))
    overhead = sum(parts[name] for name in OWN) / sum(parts.values())
    console.print(table_of(parts))
    console.print(f"loggers and callbacks on / off: {ratio:.3f} (at most {MOST_OBSERVED})")
    console.print(f"overhead of the engine: {overhead:.2%} of a step (at most {MOST_OVERHEAD:.0%})")
    return 0 if ratio <= MOST_OBSERVED and overhead <= MOST_OVERHEAD else 1


if __name__ == "__main__":
    sys.exit(main())

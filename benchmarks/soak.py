"""Does a long run keep what it no longer needs? Live tensors and resident memory over many short steps.

    python benchmarks/soak.py [--steps 10000] [--recipe volume] [key.path=value ...]

The bytes of all living tensors have to be at the end what they were after the first 100 steps, and the
resident memory of the process within 5 % of that; the exit code is 1 if they are not. Logs, validation and
checkpoints are on.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from kill import RECIPES, TINY

from maquette.core.config import load_config
from maquette.core.device import memory_in_use
from maquette.training.profiling.tensors import live_bytes
from maquette.training.run import run

FIRST = 100
"""Steps until everything that a run needs is there."""
GROWTH = 0.05
"""Of the resident memory that is accepted."""
SMALL = [
    "data.width=8", "data.height=8", "trainer.limit_val_batches=1", "trainer.val_check_interval=1000",
    "training.checkpoint_every=500", "training.loggers=[csv,tensorboard]", "training.finish=[]",
    "trainer.log_every_n_steps=10",
]  # fmt: skip
FEW_SAMPLES = ["system.renderer.num_samples_per_ray=8"]


class Memory:
    """Listens to the progress of a run and looks at its memory at some steps."""

    def __init__(self, steps: int) -> None:
        self.due = [FIRST, *(step for n in range(1, 11) if (step := steps * n // 10) > FIRST)]
        self.looks: list[tuple[int, int, float]] = []
        self.begin = time.perf_counter()

    def __call__(self, event: Any) -> None:
        """Look if the step has come; events are not sent for each."""
        if event.phase == "optimising" and self.due and event.step >= self.due[0]:
            self.due = [step for step in self.due if step > event.step]
            self.look(event.step)

    def look(self, step: int) -> None:
        """Note what is there, garbage aside."""
        self.looks.append((step, live_bytes(), 1024 * memory_in_use()["process"]))
        step, live, resident = self.looks[-1]
        seconds = time.perf_counter() - self.begin
        print(f"{step:8d} {live / 2**20:12.3f} {resident:12.1f} {seconds:10.0f}", flush=True)


def main() -> int:
    """Run, print the table; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--recipe", choices=sorted(set(RECIPES) - {"stages"}), default="volume")
    parser.add_argument("words", nargs="*", help="changes of the recipe")
    args = parser.parse_args()
    torch.set_num_threads(1)
    name, own = RECIPES[args.recipe]
    few = [] if args.recipe == "gaussians" else FEW_SAMPLES
    print(f"{'step':>8s} {'tensors MiB':>12s} {'memory MiB':>12s} {'seconds':>10s}", flush=True)
    memory = Memory(args.steps)
    with tempfile.TemporaryDirectory() as folder:
        words = [*TINY, *own, *SMALL, *few, f"trainer.max_steps={args.steps}", *args.words]
        cfg = load_config(name, words, {"run_dir": str(Path(folder) / "run")})
        run(cfg, "train", listeners=[memory])
    (_, tensors, resident), (_, tensors_end, resident_end) = memory.looks[0], memory.looks[-1]
    print(f"tensors: {tensors_end - tensors:+d} bytes; memory: {100 * (resident_end / resident - 1):+.1f} %")
    return 0 if tensors_end <= tensors and resident_end <= resident * (1 + GROWTH) else 1


if __name__ == "__main__":
    raise SystemExit(main())

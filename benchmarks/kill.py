"""Is the finished asset the same when its run was killed on the way? Kill runs at random moments and compare.

    python benchmarks/kill.py --kills 200 [--recipes volume,sdf,...] [--record FILE] [--minutes 9] [--out DIR]

Each trial starts a short run, ends it by SIGKILL, goes on with `launch --resume` (or with the same command
again if the run had come to nothing), and compares `mesh.glb` byte for byte, and all weights bit for bit,
with those of an undisturbed run. Moments are drawn evenly over the whole length of a run; a part of the kills
is aimed at the writing of a checkpoint: with a part of the file written, all of it, or its name just given.

The workers are forked from one process that has imported and compiled everything and has no threads. What is
done is kept in the record; the same command goes on where it was stopped. The exit code is 1 if any result
differs.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import torch

from maquette.apps import running
from maquette.apps.main import main as command
from maquette.core import paths
from maquette.core.loading import load_checkpoint

AIMED = 0.3
"""Share of the kills that are aimed at the writing of a checkpoint."""
POINTS = ("torn", "written", "named")
"""What is there when an aimed kill comes: a part of the temporary file, all of it, the new file."""
STEPS = 4
TINY = [
    "system.prompt_processor.pretrained_model_name_or_path=maquette/random-tiny",
    "system.prompt_processor.prompt=a red mushroom",
    f"trainer.max_steps={STEPS}", "trainer.limit_val_batches=1", "trainer.val_check_interval=2",
    "training.checkpoint_every=1", "training.snapshot_code=false", "training.loggers=[csv]",
    "data.batch_size=1", "data.width=16", "data.height=16", "data.eval_width=16", "data.eval_height=16",
    "data.n_val_views=1", "data.n_test_views=2", "system.exporter.texture_size=32",
    "system.showcase.frames=2", "system.showcase.frame_size=16", "system.showcase.view_size=16",
]  # fmt: skip
FIELD = ["geometry.isosurface_resolution=16", "geometry.pos_encoding_config.n_levels=4",
         "geometry.pos_encoding_config.log2_hashmap_size=10", "renderer.num_samples_per_ray=16"]  # fmt: skip
VOLUME = [f"system.{word}" for word in FIELD]
RECIPES: dict[str, tuple[str, list[str]]] = {
    "volume": ("first-light", [*VOLUME, "training.ema.enabled=true"]),
    "sdf": ("sdf", VOLUME),
    "gaussians": ("gaussians", [
        "system.geometry.init_num_pts=64", "system.geometry.max_num=128",
        "system.geometry.densify_from_iter=0", "system.geometry.densification_interval=1",
        "system.geometry.densify_grad_threshold=0.0",
        "system.geometry.prune_interval=2", "system.geometry.isosurface_resolution=16",
    ]),
    "stages": ("volume-to-tetrahedra", [
        *(word.replace("system.", "stages.coarse.system.") for word in VOLUME),
        "stages.refine.system.geometry.isosurface_resolution=12",
        *(word.replace("system.", "stages.refine.system.") for word in VOLUME[1:3]),
    ]),
    "vsd": ("prolificdreamer", VOLUME),
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One kill and what came of it."""

    number: int
    recipe: str
    moment: float
    """Seconds after the start; 0 for a kill that was aimed."""
    phase: str
    """What the run was doing when it was hit."""
    identical: bool
    detail: str = ""
    """What differs."""


@dataclass(frozen=True)
class Whole:
    """An undisturbed run."""

    digests: dict[str, str]
    seconds: float


class Phase:
    """What a worker is doing, in memory that outlives it."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 32)

    def write(self, name: str) -> None:
        """Called by the worker."""
        self.memory[:] = name.encode()[:32].ljust(32)

    def read(self) -> str:
        """Called by whoever killed it."""
        return bytes(self.memory).decode().strip()


class Listener:
    """Stands in for the bar that the command shows, and writes the phase down."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *error: object) -> None:
        self.phase.write("concluding")

    def __call__(self, event: Any) -> None:
        """One event of progress."""
        self.phase.write(event.phase.rpartition(": ")[2])

    def log_handler(self) -> None:
        """Messages go where they always go."""


def words(recipe: str, out: Path) -> list[str]:
    """The command that starts a short run."""
    name, own = RECIPES[recipe]
    return ["launch", "--config", name, "--train", "--out", str(out), *TINY, *own]


def resumed(recipe: str, out: Path) -> list[str]:
    """The command that goes on with it."""
    if (out / "configs" / "parsed.yaml").is_file():
        return ["launch", "--resume", str(out)]
    return words(recipe, out)


def fork(argv: Sequence[str], log: Path, phase: Phase, trap: Callable[[], None] = lambda: None) -> int:
    """Start a worker that carries out a command; its process id."""
    phase.write("starting")
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        _work(argv, log, phase, trap)
    return process


def _work(argv: Sequence[str], log: Path, phase: Phase, trap: Callable[[], None]) -> NoReturn:
    code = 3
    try:
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        trap()
        code = carry_out(argv, phase)
    finally:
        os._exit(code)


def carry_out(argv: Sequence[str], phase: Phase) -> int:
    """A command in this process; its exit code."""
    running.ProgressBar = lambda console: Listener(phase)  # type: ignore[assignment,misc]
    return command(list(argv))


def aimed(write: int, point: str, share: float, phase: Phase) -> Callable[[], None]:
    """What makes a worker end itself while it writes its checkpoint number `write`."""

    def install() -> None:
        count = SimpleNamespace(writes=0)
        save, flush_folder = torch.save, paths._flush_folder

        def end() -> None:
            phase.write(f"writing ({point})")
            os.kill(os.getpid(), signal.SIGKILL)

        def saved(content: Any, target: Any, *args: Any, **options: Any) -> None:
            save(content, target, *args, **options)
            if isinstance(target, Path) and target.suffix == ".ckpt":
                count.writes += 1
                if count.writes == write and point != "named":
                    if point == "torn":
                        os.truncate(target, int(share * target.stat().st_size))
                    end()

        def flushed(folder: Path) -> None:
            if folder.name == "ckpts" and count.writes == write:
                end()
            flush_folder(folder)

        torch.save, paths._flush_folder = saved, flushed

    return install


def digests(out: Path) -> dict[str, str]:
    """What has to be the same: the mesh, and all weights of each checkpoint that a run goes on from."""
    found = {"mesh.glb": hashlib.sha256((out / "mesh.glb").read_bytes()).hexdigest()}
    for path in sorted(out.rglob("last.ckpt")):
        state, total = load_checkpoint(path)["state_dict"], hashlib.sha256()
        for name, value in sorted(state.items()):
            total.update(name.encode() + value.detach().contiguous().numpy().tobytes())
        found[str(path.relative_to(out))] = total.hexdigest()
    return found


def undisturbed(recipe: str, folder: Path) -> Whole:
    """Load all that the recipe needs into this process, then let a worker carry it out to its end.

    Raises:
        SystemExit: it fails, or threads are left, with which no process may fork.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with (folder / "here.log").open("w") as log, redirect_stdout(log), redirect_stderr(log):
        code = carry_out(words(recipe, folder / "here"), Phase())
    if code != 0:
        raise SystemExit(f"the run of {recipe} fails undisturbed, see {log.name}")
    here = digests(folder / "here")
    gc.collect()
    gc.freeze()  # or every worker would copy what the collector only looks at
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise SystemExit(f"{threads} threads: none may run where workers are forked")
    begin = time.perf_counter()
    process = fork(words(recipe, folder / "whole"), folder / "whole.log", Phase())
    _, status = os.waitpid(process, 0)
    seconds = time.perf_counter() - begin
    if status != 0 or digests(folder / "whole") != here:
        raise SystemExit(f"two undisturbed runs of {recipe} differ, see {folder}")
    print(f"{recipe}: {seconds:.1f} s undisturbed")
    return Whole(here, seconds)


def trial(number: int, recipe: str, whole: Whole, folder: Path, seed: int) -> Trial:
    """Kill a run, go on with it, and compare."""
    draws = random.Random(f"{seed}/{number}")
    phase, log, out = Phase(), folder / f"{number}.log", folder / str(number)
    moment, hit = 0.0, ""
    while not hit:  # a worker that is done before its moment comes was not killed
        shutil.rmtree(out, ignore_errors=True)
        if draws.random() < AIMED:
            moment, hit = 0.0, _shot(recipe, draws, out, log, phase)
        else:
            moment = draws.uniform(0.0, whole.seconds)
            hit = _killed(recipe, moment, out, log, phase)
    process = fork(resumed(recipe, out), log, phase)
    _, status = os.waitpid(process, 0)
    detail = f"exit status {status}, see {log}" if status else _difference(whole.digests, digests(out))
    if not detail:
        shutil.rmtree(out)
        log.unlink()
    return Trial(number, recipe, round(moment, 3), hit, not detail, detail)


def _shot(recipe: str, draws: random.Random, out: Path, log: Path, phase: Phase) -> str:
    writes = STEPS * (2 if recipe == "stages" else 1)
    trap = aimed(draws.randint(1, writes), draws.choice(POINTS), draws.random(), phase)
    _, status = os.waitpid(fork(words(recipe, out), log, phase, trap), 0)
    return phase.read() if os.WIFSIGNALED(status) else ""


def _killed(recipe: str, moment: float, out: Path, log: Path, phase: Phase) -> str:
    process = fork(words(recipe, out), log, phase)
    time.sleep(moment)
    os.kill(process, signal.SIGKILL)  # also where it has ended: it is waited for only below
    _, status = os.waitpid(process, 0)
    if not os.WIFSIGNALED(status):
        return ""
    writing = any(paths.is_unfinished(path) for path in out.rglob("ckpts/*"))
    return "writing (by chance)" if writing else phase.read()


def _difference(wanted: dict[str, str], found: dict[str, str]) -> str:
    return ", ".join(name for name in {**wanted, **found} if wanted.get(name) != found.get(name))


def kept(record: Path) -> list[Trial]:
    """The trials of earlier calls."""
    lines = record.read_text().splitlines() if record.is_file() else []
    return [Trial(**json.loads(line)) for line in lines]


def carried_out(args: argparse.Namespace, folder: Path, done: dict[int, Trial]) -> Iterator[Trial]:
    """The trials that are still to be made, recipe by recipe in turn, until the time is up."""
    recipes, end = args.recipes.split(","), time.monotonic() + 60 * args.minutes
    wholes: dict[str, Whole] = {}
    for number in range(args.kills):
        if number in done:
            continue
        if time.monotonic() > end:
            return
        recipe = recipes[number % len(recipes)]
        if recipe not in wholes:
            wholes[recipe] = undisturbed(recipe, folder / recipe)
        yield trial(number, recipe, wholes[recipe], folder / recipe, args.seed)


def table(trials: Sequence[Trial]) -> str:
    """How many kills hit which phase of which recipe, and how many of them changed nothing."""
    recipes = sorted({one.recipe for one in trials})
    phases = sorted({one.phase for one in trials})
    lines = ["".join(f"{name:>12s}" for name in ["", *recipes, "all"])]
    for phase in phases:
        hits = [sum(one.phase == phase and one.recipe == recipe for one in trials) for recipe in recipes]
        lines.append(f"{phase:22s}"[:22] + "".join(f"{n:12d}" for n in [*hits, sum(hits)])[10:])
    same = [sum(one.identical for one in trials if one.recipe == recipe) for recipe in recipes]
    lines.append(f"{'identical':22s}" + "".join(f"{n:12d}" for n in [*same, sum(same)])[10:])
    return "\n".join(lines)


def main() -> int:
    """Make the trials and print the table; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--recipes", default=",".join(RECIPES), help="of: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no trial after that time")
    parser.add_argument("--record", type=Path, help="keep the trials there, and go on with them")
    parser.add_argument("--out", type=Path, help="folder of the runs (default: a temporary one)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    done = {one.number: one for one in kept(args.record)} if args.record else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.out or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        for one in carried_out(args, folder, done):
            done[one.number] = one
            print(
                f"{one.number:4d} {one.recipe:10s} {one.phase:22s} {'same' if one.identical else one.detail}"
            )
            if args.record:
                with args.record.open("a") as file:
                    file.write(json.dumps(asdict(one)) + "\n")
    trials = [done[number] for number in sorted(done) if number < args.kills]
    same = sum(one.identical for one in trials)
    print(f"\n{table(trials)}\n\n{len(trials)} kills, {same} identical results")
    return 0 if same == len(trials) else 1


if __name__ == "__main__":
    raise SystemExit(main())

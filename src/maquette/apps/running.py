"""What ``generate`` and ``launch`` share: read the recipe, carry it out, say what came of it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any

from rich.console import Console

from maquette.apps.debugger import debugger
from maquette.apps.errors import INTERRUPTED
from maquette.apps.processes import run_processes
from maquette.apps.progress_bar import ProgressBar
from maquette.core.config import ExperimentConfig, load_config
from maquette.core.errors import UserError
from maquette.core.log import setup_logging
from maquette.core.processes import TERMINATED, is_launched, is_leader
from maquette.core.recipes import recipe_path
from maquette.core.registry import load_extension

STATES = {
    "done": "Done",
    "interrupted": "Stopped",
    "terminated": "Stopped by SIGTERM",
    "out of time": "Out of time",
}

INSTRUMENTS = {
    "profile": "PyTorch's profiler over a few steps: trace.json for a viewer, profile.txt",
    "memory-snapshot": "memory over a few steps: memory.html; memory.pickle on a GPU",
    "detect-anomaly": "find the function whose derivative is no number: anomaly.txt (slow)",
    "sync-audit": "which lines read numbers back from the device, in ten steps: sync.txt",
}


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that every command with a run folder has."""
    parser.add_argument("--out", metavar="DIR", help="run folder (default: a dated one under outputs/)")
    parser.add_argument(
        "--overwrite", action="store_true", help="with --out: replace the run in DIR, once this one works"
    )
    parser.add_argument(
        "--extension", action="append", default=[], metavar="PATH", help="load your own modules"
    )
    parser.add_argument("--verbose", action="store_true", help="show what the libraries say, and tracebacks")
    instruments = parser.add_argument_group(
        "instruments", "of this run only; their files are in RUN/profiling, its result stays the same"
    )
    for name, text in INSTRUMENTS.items():
        instruments.add_argument(f"--{name}", action="store_true", help=text)
    instruments.add_argument("--debug", action="store_true", help="open the debugger where the run breaks")


def load(
    recipe: str, words: Sequence[str], options: Mapping[str, Any], args: argparse.Namespace
) -> ExperimentConfig:
    """The config of a recipe, ``key.path=value`` words, and the options that were given (not None)."""
    setup_logging(args.verbose)
    extensions = [str(Path(path).expanduser().resolve()) for path in args.extension]
    for path in extensions:
        load_extension(path)
    given = {key: value for key, value in options.items() if value is not None}
    if args.out is not None:
        given["run_dir"] = args.out
    cfg = load_config(recipe, words, given)
    cfg.extensions = [*cfg.extensions, *(path for path in extensions if path not in cfg.extensions)]
    return cfg


def execute(
    cfg: ExperimentConfig,
    mode: str,
    args: argparse.Namespace,
    *,
    raw: str | Path | None,
    resume: Path | None = None,
) -> int:
    """Carry out a config; returns the exit code.

    Args:
        cfg: the experiment.
        mode: train, validate, test or export.
        args: with what :func:`add_output_arguments` added.
        raw: the recipe as it was asked for, file or name, to be kept beside the resolved one; None when that
            one is itself the recipe.
        resume: checkpoint to continue from, or to use; the run folder where it holds stages.
    """
    if args.overwrite and args.out is None:
        raise UserError("--overwrite needs --out DIR.")
    code = run_in_processes(cfg, args)
    if code is not None:
        return code
    console = Console(stderr=True, quiet=not is_leader())
    with debugger(getattr(args, "debug", False)), ProgressBar(console) as bar:
        setup_logging(args.verbose, bar.log_handler())
        from maquette.training.profiling.tools import Tools
        from maquette.training.run import run

        flags = {name.replace("-", "_") for name in INSTRUMENTS}
        result = run(
            cfg,
            mode,
            listeners=[bar],
            resume=resume,
            raw=None if raw is None else recipe_path(raw),
            overwrite=args.overwrite,
            verbose=args.verbose,
            tools=Tools(**{flag: getattr(args, flag, False) for flag in flags}),
        )
    if is_leader():
        _summarise(result, Console(highlight=False, soft_wrap=True))
    return {"interrupted": INTERRUPTED, "terminated": TERMINATED}.get(result.status, 0)


def run_in_processes(cfg: ExperimentConfig, args: argparse.Namespace, *later: ExperimentConfig) -> int | None:
    """Have the whole command, which carries out a config and perhaps later ones, carried out by as many
    processes as the recipe asks for; their exit code, or None where this process is to carry it out.
    """
    count = wanted_processes(cfg)
    if count == 1 or is_launched():
        return None
    if getattr(args, "debug", False):
        raise UserError("--debug needs one process.", hint="trainer.devices=1")
    return run_processes(count, args.words, lambda: begun_run(cfg, *later))


def begun_run(*configs: ExperimentConfig) -> Path | None:
    """The folder of the last run that other processes have begun from these configs, read there again: a date
    in its name is not earlier than the one read here. None where none was begun.
    """
    begun = [folder for cfg in configs if (folder := _begun(cfg)) is not None]
    return begun[-1] if begun else None


def _begun(cfg: ExperimentConfig) -> Path | None:
    own = cfg.trial_dir
    if cfg.run_dir is not None or not cfg.use_timestamp or not cfg.timestamp:
        return own if own.is_dir() else None
    tag = own.name.removesuffix(cfg.timestamp)
    begun = [one for one in own.parent.glob(f"{escape(tag)}@*") if one.is_dir() and one.name >= own.name]
    return min(begun, default=None)


def wanted_processes(cfg: ExperimentConfig) -> int:
    """How many processes the recipe asks for on this machine: one, nearly always."""
    if cfg.trainer.get("devices", 1) == 1:
        return 1
    from maquette.training.distributed import processes_wanted

    return processes_wanted(cfg.trainer)


def _summarise(result: Any, console: Console) -> None:
    minutes, seconds = divmod(round(result.total_seconds), 60)
    state = STATES[result.status]
    facts = f"step {result.global_step}, {minutes} min {seconds:02d} s, {result.peak_memory_gb:.1f} GB"
    console.print(f"[bold]{state}[/]: {facts}")
    for path in result.files:
        console.print(f"  {path}  ({_size(path)})", markup=False)
    if not result.files:
        console.print(f"  {result.trial_dir}", markup=False)
    if result.status != "done":
        console.print(f"  go on with: maquette launch --resume {result.trial_dir}", markup=False)


def _size(path: Path) -> str:
    kilobytes = path.stat().st_size / 1000
    return f"{kilobytes / 1000:.1f} MB" if kilobytes >= 1000 else f"{kilobytes:.0f} kB"

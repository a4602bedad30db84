"""One run from a config to finished files: train, validate, test or export."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from maquette.core.collectives import by_leader, from_leader
from maquette.core.config import ExperimentConfig
from maquette.core.errors import MissingFileError, UserError
from maquette.core.locks import sole_use
from maquette.core.processes import is_leader
from maquette.core.progress import ProgressListener
from maquette.training.distributed import together
from maquette.training.job import run_job
from maquette.training.mode import Mode
from maquette.training.profiling.tools import NO_TOOLS, Tools
from maquette.training.replacing import OldRun, check_not_needed
from maquette.training.result import RunResult
from maquette.training.resuming import resumed_checkpoint
from maquette.training.run_folder import RunFolder
from maquette.training.stages import run_stages

__all__ = ["RunResult", "run"]


def run(
    cfg: ExperimentConfig,
    mode: Mode,
    *,
    listeners: Sequence[ProgressListener] = (),
    resume: str | Path | None = None,
    raw: str | Path | None = None,
    overwrite: bool = False,
    verbose: bool = False,
    tools: Tools = NO_TOOLS,
) -> RunResult:
    """Carry out ``cfg``, stage by stage where it has stages; training is followed by what ``training.finish``
    lists.

    Args:
        cfg: the experiment.
        mode: what to do.
        listeners: told about phases and steps.
        resume: checkpoint to continue from (train) or to use (the others), or a run folder, which stands for
            its newest complete checkpoint and begins anew if it has none yet; ``cfg.resume`` if it is not
            given. A run of several stages goes on in its own folder, where it was.
        raw: the recipe file as it was given, kept in ``configs/raw.yaml``.
        overwrite: replace the run that is in the folder already, as soon as this one has a checkpoint (of
            its last stage); without it a folder in use is refused.
        verbose: let the libraries talk.
        tools: instruments of this run, such as a profiler; they do not change its result.

    Where several processes were started (torchrun), each of them calls this, and they share the run.

    Raises:
        UserError: another program is at work in the folder, or something in the config cannot be; no folder
            is left behind, and an old run is kept.
        RunFailed: the run began and broke; the cause is named.
        KeyboardInterrupt: Ctrl-C a second time, or while nothing was optimised.
    """
    with together():
        cfg = replace(cfg, timestamp=from_leader(cfg.timestamp))  # no two processes start at the same moment
        folder = RunFolder(Path(cfg.trial_dir))
        with sole_use(folder.root) if is_leader() else nullcontext():
            by_leader(OldRun(folder).settle)
            if overwrite and mode == "train" and (resume or cfg.resume) is None:
                check_not_needed(cfg, folder)
            return _run(cfg, mode, listeners, resume, raw, overwrite, verbose, tools)


def _run(
    cfg: ExperimentConfig,
    mode: Mode,
    listeners: Sequence[ProgressListener],
    resume: str | Path | None,
    raw: str | Path | None,
    overwrite: bool,
    verbose: bool,
    tools: Tools,
) -> RunResult:
    path = _resume_path(cfg, mode, resume)
    if cfg.stages:
        return run_stages(
            cfg,
            mode,
            listeners=listeners,
            resume=_inside(path, RunFolder(cfg.trial_dir)),
            raw=raw,
            overwrite=overwrite,
            verbose=verbose,
            tools=tools,
        )
    checkpoint = None if path is None else resumed_checkpoint(path, training=mode == "train")
    again = path is not None and checkpoint is None and _same(path, cfg.trial_dir)
    if again and cfg.resume is not None and not _same(Path(cfg.resume), cfg.trial_dir):
        checkpoint = resumed_checkpoint(Path(cfg.resume), training=True)  # it had gone on with another run
    if checkpoint is not None and mode == "train" and not RunFolder(cfg.trial_dir).holds(checkpoint):
        cfg = replace(cfg, resume=str(checkpoint.absolute()))
    return run_job(
        cfg,
        mode,
        listeners=listeners,
        resume=checkpoint,
        again=again,
        raw=raw,
        overwrite=overwrite,
        verbose=verbose,
        tools=tools,
    )


def _resume_path(cfg: ExperimentConfig, mode: Mode, resume: str | Path | None) -> Path | None:
    path = resume or cfg.resume
    if path is None and mode != "train":
        raise UserError(
            f"--{mode} needs the weights of a run; without them it would show a random model.",
            hint="give resume=RUN/ckpts/last.ckpt, or launch --resume RUN",
        )
    return None if path is None else Path(path).expanduser()


def _same(path: Path, other: Path) -> bool:
    return path.expanduser().resolve() == other.resolve()


def _inside(path: Path | None, folder: RunFolder) -> Path | None:
    """What a run of several stages is continued from: its folder, or a checkpoint in it.

    Raises:
        MissingFileError: what to continue is not there.
        UserError: it is somewhere else.
    """
    if path is None:
        return None
    if not path.exists():
        raise MissingFileError(path, "run to resume")
    if not folder.holds(path):
        raise UserError(
            f"A run of several stages goes on in its own folder, and {path} is not in {folder.root}.",
            hint="launch --resume RUN without --out; to begin elsewhere, copy the whole run folder",
        )
    return path

"""One run from a config to finished files: train, validate, test or export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maquette.core.config import ExperimentConfig
from maquette.core.errors import MissingFileError, UserError
from maquette.core.progress import ProgressListener
from maquette.training.job import MODES, Mode, run_job
from maquette.training.result import RunResult
from maquette.training.stages import run_stages

__all__ = ["MODES", "Mode", "RunResult", "run"]


def run(
    cfg: ExperimentConfig,
    mode: Mode,
    *,
    listeners: Sequence[ProgressListener] = (),
    resume: str | Path | None = None,
    raw: str | Path | None = None,
    overwrite: bool = False,
    verbose: bool = False,
) -> RunResult:
    """Carry out ``cfg``, stage by stage where it has stages; training is followed by what ``training.finish``
    lists.

    Args:
        cfg: the experiment.
        mode: what to do.
        listeners: told about phases and steps.
        resume: checkpoint to continue from (train) or to use (the others), or the folder of a run of several
            stages; ``cfg.resume`` if it is not given.
        raw: the recipe file as it was given, kept in ``configs/raw.yaml``.
        overwrite: remove the run that is in the folder already; without it a folder in use is refused.
        verbose: let the libraries talk.

    Raises:
        UserError: something in the config cannot be; no folder is left behind.
        RunFailed: the run began and broke; the cause is named.
        KeyboardInterrupt: Ctrl-C a second time, or while nothing was optimised.
    """
    if cfg.stages:
        return run_stages(
            cfg,
            mode,
            listeners=listeners,
            resume=_resume_path(cfg, mode, resume) is not None,
            raw=raw,
            overwrite=overwrite,
            verbose=verbose,
        )
    return run_job(
        cfg,
        mode,
        listeners=listeners,
        resume=_checkpoint(_resume_path(cfg, mode, resume)),
        raw=raw,
        overwrite=overwrite,
        verbose=verbose,
    )


def _resume_path(cfg: ExperimentConfig, mode: Mode, resume: str | Path | None) -> Path | None:
    path = resume or cfg.resume
    if path is None and mode != "train":
        raise UserError(
            f"--{mode} needs the weights of a run; without them it would show a random model.",
            hint="give resume=RUN/ckpts/last.ckpt, or launch --resume RUN",
        )
    return None if path is None else Path(path)


def _checkpoint(path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise MissingFileError(path, "checkpoint to resume from")
    return path

"""Several stages in one run, coarse to fine: each is a run of its own and begins where the last one ended."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from maquette.core.collectives import by_leader, from_leader
from maquette.core.config import ExperimentConfig, check_modules, stage_configs
from maquette.core.device import release_memory
from maquette.core.errors import MissingFileError, UserError
from maquette.core.paths import atomic_path, remove_leftovers
from maquette.core.processes import is_leader
from maquette.core.progress import ProgressEvent, ProgressListener
from maquette.core.registry import find, load_extension
from maquette.core.stages import in_stage
from maquette.io.data import read_json, write_json
from maquette.training.config import training_config
from maquette.training.failures import named_failures
from maquette.training.job import run_job
from maquette.training.mode import Mode
from maquette.training.optimization.optimizers import plain
from maquette.training.profiling.tools import NO_TOOLS, Tools
from maquette.training.record import run_record
from maquette.training.replacing import OldRun, kept_until_it_works
from maquette.training.result import RunResult
from maquette.training.resuming import check_finished, newest_checkpoint
from maquette.training.run_folder import RunFolder, nothing_left_behind
from maquette.training.trainer import check_trainer, recipe_checkpoints


@dataclass(frozen=True)
class Stage:
    """One stage of a run."""

    index: int
    name: str
    of: int
    """How many stages there are."""
    cfg: ExperimentConfig
    """Its whole config; its folder is that of the run of this stage."""

    @property
    def folder(self) -> RunFolder:
        """Where it writes: ``RUN/stages/NN-name``."""
        return RunFolder(self.cfg.trial_dir)

    @property
    def title(self) -> str:
        """What progress calls it."""
        return f"{self.index + 1}/{self.of} {self.name}"

    def record(self) -> dict[str, Any]:
        """Its ``run.json``; empty while there is none."""
        path = self.folder.root / "run.json"
        return read_json(path) if path.is_file() else {}

    def is_done(self) -> bool:
        """Whether it has taken all its steps; the last stage may have been given more of them since."""
        record = self.record()
        wanted = self.cfg.trainer.get("max_steps", 0) if self.index + 1 == self.of else 0
        return record.get("status") == "done" and record["global_step"] >= wanted


def run_stages(
    cfg: ExperimentConfig,
    mode: Mode,
    *,
    listeners: Sequence[ProgressListener] = (),
    resume: Path | None = None,
    raw: str | Path | None = None,
    overwrite: bool = False,
    verbose: bool = False,
    tools: Tools = NO_TOOLS,
) -> RunResult:
    """Carry out every stage of ``cfg`` in ``RUN/stages``; what the last one leaves stands at the top of RUN.

    Args:
        cfg: an experiment with stages.
        mode: train carries all of them out; the others use the weights of the newest one.
        listeners: told about phases and steps, the phase with the stage's name before it.
        resume: the run folder, to go on with the stage that was not finished; those before it are left as
            they are. A checkpoint of a stage, to go back to it, or to use it.
        raw: the recipe file as it was given.
        overwrite: replace the run that is in the folder already, when the last stage has taken a step.
        verbose: let the libraries talk.
        tools: instruments of every stage.

    Raises:
        UserError: something in the config of any stage cannot be; no folder is left behind.
        RunFailed: a stage broke; those before it are there, and ``resume`` continues.
    """
    folder = RunFolder(Path(cfg.trial_dir))
    before = OldRun(folder)
    with named_failures(folder), nothing_left_behind(folder), kept_until_it_works(before):
        stages = _checked(cfg, folder)
        if mode != "train":
            return _evaluate(stages, folder, mode, resume, listeners, verbose)
        if is_leader():
            folder.check_usable(reuse=overwrite or resume is not None)
        back = _stage_of(resume, stages)
        first = 0 if resume is None else _first_open(stages)
        if back is not None:
            if back.index > first:
                raise UserError(
                    f"Stage {back.index} ({back.name}) cannot go on: one before it is not finished.",
                    hint="resume the run folder",
                )
            first = back.index
        _check_finished(stages[:first])
        left = stages[first:]
        later = {stage.index: [OldRun(one.folder) for one in stages[stage.index + 1 :]] for stage in left}

        def opening(stage: Stage | None) -> None:
            if stage is None or stage is left[0]:
                if overwrite and resume is None:
                    before.set_aside()
                _open(cfg, folder, raw)
            for one in later[stage.index] if stage else ():
                one.set_aside()  # what stands there began with something else

        if not left:
            by_leader(lambda: opening(None))
        for stage in left:
            checkpoint = resume if stage is back else newest_checkpoint(stage.folder) if resume else None
            replaces = later[stage.index] or [before]
            if _train(stage, checkpoint, opening, replaces, listeners, verbose, tools).status != "done":
                break
        return _concluded(cfg, stages, folder)


def _stage_of(path: Path | None, stages: Sequence[Stage]) -> Stage | None:
    """The stage that a checkpoint is of; None for a folder.

    Raises:
        UserError: it is of none.
    """
    if path is None or not path.is_file():
        return None
    found = next((stage for stage in stages if stage.folder.holds(path)), None)
    if found is None:
        raise UserError(
            f"The checkpoint {path} is of no stage of this run.",
            [f"its stages: {', '.join(stage.folder.root.name for stage in stages)}"],
            "give the run folder, or RUN/stages/NN-NAME/ckpts/NAME.ckpt",
        )
    return found


def _first_open(stages: Sequence[Stage]) -> int:
    """The first stage that is not done; how many there are if all of them are."""
    return next((stage.index for stage in stages if not stage.is_done()), len(stages))


def _checked(cfg: ExperimentConfig, folder: RunFolder) -> list[Stage]:
    """The stages, each checked as far as that is possible before the first one runs."""
    for path in cfg.extensions:
        load_extension(path)
    stages = []
    for index, (entry, one) in enumerate(zip(cfg.stages, stage_configs(cfg), strict=True)):
        with in_stage(index, entry["name"]):
            check_modules(one)
            training_config(one)
            check_trainer(plain(one.trainer))
            recipe_checkpoints(plain(one.checkpoint), folder)
        one.run_dir = str(folder.stages / f"{index:02d}-{entry['name']}")
        one.training["snapshot_code"] = False  # it is kept once, for the whole
        stages.append(Stage(index, entry["name"], len(cfg.stages), one))
    for before, stage in pairwise(stages):
        system = find(stage.cfg.system_type, "system")
        stage.cfg.system.update(system.following(stage.cfg.system, before.folder.last_checkpoint))
    return stages


def _check_finished(stages: Sequence[Stage]) -> None:
    for stage in stages:
        if stage.is_done():
            check_finished(stage.folder, stage.cfg, stage.name, stage.index)


def _open(cfg: ExperimentConfig, folder: RunFolder, raw: str | Path | None) -> None:
    folder.forget_end()
    folder.create()
    remove_leftovers(folder.root)
    folder.write_configs(cfg.to_yaml(), raw)
    folder.write_command()
    if training_config(cfg).snapshot_code:
        folder.write_code(cfg.extensions)


def _train(
    stage: Stage,
    checkpoint: Path | None,
    opening: Callable[[Stage], None],
    replaces: Sequence[OldRun],
    listeners: Sequence[ProgressListener],
    verbose: bool,
    tools: Tools,
) -> RunResult:
    """Begin a stage, or go on with it where its checkpoint is."""
    with in_stage(stage.index, stage.name):
        result = run_job(
            stage.cfg,
            "train",
            listeners=[_with_title(one, stage.title) for one in listeners],
            resume=checkpoint,
            overwrite=True,
            verbose=verbose,
            always_export=True,
            tools=tools,
            opening=lambda: opening(stage),
            replaces=replaces,
        )
    gc.collect()  # a system and its Trainer refer to each other
    release_memory()
    return result


def _evaluate(
    stages: Sequence[Stage],
    folder: RunFolder,
    mode: Mode,
    resume: Path | None,
    listeners: Sequence[ProgressListener],
    verbose: bool,
) -> RunResult:
    """Use a checkpoint, or the newest weights that there are."""
    given = _stage_of(resume, stages)
    stage = given or next((one for one in reversed(stages) if one.folder.has_checkpoint), None)
    if stage is None:
        raise MissingFileError(folder.stages, "checkpoint of any stage")
    told = [_with_title(one, stage.title) for one in listeners]
    with in_stage(stage.index, stage.name):
        checkpoint = resume if given else newest_checkpoint(stage.folder, training=False)
        result = run_job(stage.cfg, mode, listeners=told, resume=checkpoint, verbose=verbose)
    copies = _at_the_top(folder, result.files) if is_leader() else []
    return replace(result, trial_dir=folder.root, files=copies)


def _concluded(cfg: ExperimentConfig, stages: Sequence[Stage], folder: RunFolder) -> RunResult:
    """The result of all stages together, which the leading process sums up."""
    return cast(RunResult, from_leader(_conclude(cfg, stages, folder) if is_leader() else None))


def _conclude(cfg: ExperimentConfig, stages: Sequence[Stage], folder: RunFolder) -> RunResult:
    """Put the products of the newest stage at the top, and sum up."""
    records = {stage.name: stage.record() for stage in stages if stage.record()}
    newest = [stage for stage in stages if stage.name in records][-1]
    last = records[newest.name]
    result = RunResult(
        trial_dir=folder.root,
        global_step=last["global_step"],
        last_loss=float("nan") if last["last_loss"] is None else last["last_loss"],
        seconds={
            f"{name}: {phase}": seconds
            for name, record in records.items()
            for phase, seconds in record["seconds"].items()
        },
        peak_memory_gb=max(record["peak_memory_gb"] for record in records.values()),
        files=_at_the_top(folder, [newest.folder.root / name for name in last["files"]]),
        interrupted=any(record["status"] == "interrupted" for record in records.values()),
        terminated=any(record["status"] == "terminated" for record in records.values()),
        out_of_time=any(record["status"] == "out of time" for record in records.values()),
    )
    write_json(folder.root / "run.json", run_record(cfg, "train", result, stages=_told(records)))
    return result


def _told(records: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            **{key: record[key] for key in ("status", "global_step", "last_loss")},
            "seconds": round(sum(record["seconds"].values()), 2),
        }
        for name, record in records.items()
    }


def _at_the_top(folder: RunFolder, files: Sequence[Path]) -> list[Path]:
    """Copies of the files at the top of the run folder."""
    copies = []
    for source in files:
        with atomic_path(folder.root / source.name) as temporary:
            shutil.copyfile(source, temporary)
        copies.append(folder.root / source.name)
    return copies


def _with_title(listener: ProgressListener, title: str) -> ProgressListener:
    def told(event: ProgressEvent) -> None:
        listener(replace(event, phase=f"{title}: {event.phase}"))

    return told

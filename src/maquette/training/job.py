"""One run of one recipe, without stages: its parts, and what is done with them in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment

from maquette.core.collectives import by_leader, from_leader
from maquette.core.config import ExperimentConfig, check_modules
from maquette.core.device import peak_memory
from maquette.core.log import get_logger
from maquette.core.paths import remove_leftovers
from maquette.core.processes import is_leader, world_size
from maquette.core.progress import ProgressListener
from maquette.core.random import seed_everything
from maquette.core.registry import find, load_extension
from maquette.data.base import BaseDataModule
from maquette.io.data import write_json
from maquette.training.base_system import BaseSystem
from maquette.training.callbacks.after_first_step import AfterFirstStep
from maquette.training.callbacks.batch_boundaries import BatchBoundaries
from maquette.training.callbacks.checkpoint import LastCheckpoint
from maquette.training.callbacks.collapse import last_loss
from maquette.training.callbacks.ema import EMA
from maquette.training.callbacks.interrupt import Abort, Interrupt
from maquette.training.callbacks.speed_log import step_seconds
from maquette.training.callbacks.standard import standard_callbacks
from maquette.training.callbacks.time_budget import out_of_time
from maquette.training.config import training_config
from maquette.training.craft.apply import craft_callbacks, prepare
from maquette.training.distributed import several_processes
from maquette.training.failures import named_failures
from maquette.training.loggers import make_loggers
from maquette.training.mode import Mode
from maquette.training.optimization.optimizers import plain
from maquette.training.phases import Phases
from maquette.training.profiling.tools import NO_TOOLS, Tools
from maquette.training.record import run_record
from maquette.training.replacing import OldRun, kept_until_it_works
from maquette.training.result import RunResult
from maquette.training.resuming import say_changes, set_later_aside
from maquette.training.run_folder import RunFolder, nothing_left_behind
from maquette.training.trainer import (
    check_trainer,
    make_trainer,
    quiet,
    recipe_checkpoints,
    refused_by_lightning,
)
from maquette.training.weights import check_fits, run_checkpoint

log = get_logger(__name__)


def run_job(
    cfg: ExperimentConfig,
    mode: Mode,
    *,
    listeners: Sequence[ProgressListener] = (),
    resume: Path | None = None,
    raw: str | Path | None = None,
    overwrite: bool = False,
    verbose: bool = False,
    always_export: bool = False,
    again: bool = False,
    tools: Tools = NO_TOOLS,
    opening: Callable[[], object] | None = None,
    replaces: Sequence[OldRun] = (),
) -> RunResult:
    """Carry out one recipe; see :func:`maquette.training.run.run`.

    Args:
        again: the folder holds this run, which has no checkpoint yet: it begins anew.
        always_export: export what an interrupted run has, also where ``training.finish`` lists no export.
        tools: instruments of this run.
        opening: done before the folder is opened, by the leading process, when nothing is left to refuse.
        replaces: old runs that ``opening`` sets aside; deleted with the first checkpoint, like the old run of
            this folder.
    """
    job = _Job(cfg, mode, listeners, resume, overwrite, always_export, again, tools, replaces)
    with (
        named_failures(job.folder),
        nothing_left_behind(job.folder),
        kept_until_it_works(*job.old),
        quiet(verbose),
        job.ending,
        job.interrupt.listening(),
    ):
        with job.phases.phase("loading"):
            job.build()
            by_leader(lambda: job.open_folder(raw, opening))
        job.train() if mode == "train" else job.evaluate()
        return job.conclude()


@dataclass
class _Job:
    """The parts of one run while it goes on."""

    cfg: ExperimentConfig
    mode: Mode
    listeners: Sequence[ProgressListener]
    resume: Path | None
    overwrite: bool
    always_export: bool
    again: bool
    tools: Tools
    replaces: Sequence[OldRun]

    def __post_init__(self) -> None:
        self.listeners = self.listeners if is_leader() else ()
        self.training = training_config(self.cfg)
        self.folder = RunFolder(Path(self.cfg.trial_dir))
        self.here = OldRun(self.folder)
        self.old = (self.here, *self.replaces)
        self.phases = Phases(self.listeners)
        self.interrupt = Interrupt()
        self.ending = ExitStack()
        self.checkpoint: dict[str, Any] = {}
        self.files: list[Path] = []

    def build(self) -> None:
        """Extensions, seeds, data, system, callbacks, Trainer: in this order. No file is touched, so that a
        mistake in any of them leaves what is in the folder as it was.
        """
        for path in self.cfg.extensions:
            load_extension(path)
        check_modules(self.cfg)
        if is_leader():
            self.folder.check_usable(reuse=self.overwrite or self.again or self.folder.holds(self.resume))
        if self.resume is not None:
            self.checkpoint = run_checkpoint(self.resume)
        seed_everything(self.cfg.seed)
        self.data: LightningDataModule = find(self.cfg.data_type, "data")(self.cfg.data)
        self.system: BaseSystem = find(self.cfg.system_type, "system")(
            self.cfg.system, resumed=self.resume is not None, seed=self.cfg.seed, mode=self.mode
        )
        self.system.engine = self.training
        if self.resume is not None:
            check_fits(self.system, self.checkpoint["state_dict"], self.resume)
        self.system.set_save_dir(self.folder.save)
        if self.mode == "train":
            prepare(self.system, self.training)
        self.trainer = self._make_trainer()
        if self.mode == "train":
            self._try_optimizers()

    def open_folder(self, raw: str | Path | None, opening: Callable[[], object] | None) -> None:
        """Make the folder ready; what an earlier run has left is out of the way from here on."""
        if opening is not None:
            opening()
        if self.mode == "train":
            self._make_room()
        self.folder.create()
        if self.mode == "train":
            self.folder.write_configs(self.cfg.to_yaml(), raw)
            self.folder.write_command()
            if self.training.snapshot_code:
                self.folder.write_code(self.cfg.extensions)

    def train(self) -> None:
        """Optimise, then test and export as the recipe says; an interrupted run is only exported."""
        self.checkpoint = {}  # the Trainer reads the file itself
        with (
            self.phases.phase("optimising", announce=False),
            self.tools.around(self.folder),
            refused_by_lightning(),
        ):
            self.trainer.fit(self.system, datamodule=self.data, ckpt_path=self.resume, weights_only=True)
        stopped = self.interrupt.requested or out_of_time(self.trainer.callbacks)
        if not stopped:
            by_leader(self.drop_old)
        if self.interrupt.terminated:
            return
        if "test" in self.training.finish and not self.interrupt.requested and self._does("test_step"):
            with self.phases.phase("rendering"):
                self.trainer.test(self.system, datamodule=self.data, verbose=False)
        asked = "export" in self.training.finish or out_of_time(self.trainer.callbacks)
        if (asked or (stopped and self.always_export)) and self._does("predict_step"):
            self._export()

    def evaluate(self) -> None:
        """Validate, test or export the weights of a checkpoint."""
        checkpoint = self.checkpoint
        self.system.set_resume_status(checkpoint.get("epoch", 0), checkpoint.get("global_step", 0))
        self._restore_average(checkpoint)
        self.system.load_state_dict(checkpoint["state_dict"], strict=False)
        self.system.do_update_step(
            self.system.true_current_epoch, self.system.true_global_step, on_load_weights=True
        )
        if self.mode == "export":
            self._export()
            return
        act = {"validate": self.trainer.validate, "test": self.trainer.test}[self.mode]
        with self.phases.phase("rendering"):
            act(self.system, datamodule=self.data, verbose=False)

    def conclude(self) -> RunResult:
        """Write ``run.json`` (of training; ``run-MODE.json`` of the others) and sum up."""
        result = RunResult(
            trial_dir=self.folder.root,
            global_step=self.system.true_global_step,
            last_loss=last_loss(self.trainer.callbacks),
            seconds={name: round(value, 2) for name, value in self.phases.seconds.items()},
            peak_memory_gb=round(peak_memory(), 3),
            files=self.files,
            interrupted=self.interrupt.requested and not self.interrupt.terminated,
            terminated=self.interrupt.terminated,
            out_of_time=out_of_time(self.trainer.callbacks),
        )
        name = "run.json" if self.mode == "train" else f"run-{self.mode}.json"
        parts = step_seconds(self.trainer.callbacks)
        record = run_record(self.cfg, self.mode, result, step_seconds=parts)
        by_leader(lambda: write_json(self.folder.root / name, record))
        return result

    def _export(self) -> None:
        """Files are the work of one process; the others wait."""
        by_leader(self._write_files)

    def _write_files(self) -> None:
        trainer = self.trainer if world_size() == 1 else self._lone_trainer()
        with self.phases.phase("exporting"):
            trainer.predict(self.system, datamodule=self.data, return_predictions=False)
        with self.phases.phase("rendering"), ExitStack() as stack:
            for average in self._kept_averages():
                stack.enter_context(average.evaluated(self.system))
            self.files += self.system.finish(self.folder.root)

    def _lone_trainer(self) -> Trainer:
        """A Trainer of this process alone, for the weights as they are."""
        self.system.set_resume_status(self.system.true_current_epoch, self.system.true_global_step)
        settings = {**plain(self.cfg.trainer), "devices": 1, "strategy": "auto", "num_nodes": 1}
        callbacks = [BatchBoundaries(self.cfg.seed), self.interrupt, *self._kept_averages()]
        plugins = [LightningEnvironment()]
        return make_trainer({**settings, "plugins": plugins}, self.training, self.folder, callbacks, [])

    def heed_early_stop(self) -> None:
        """Give up if Ctrl-C was pressed in the first step, and an old run can come back.

        Raises:
            Abort: it was, and there is one.
        """
        requested = self.interrupt.requested and not self.interrupt.terminated
        if from_leader(requested and any(one.can_come_back for one in self.old)):
            raise Abort

    def drop_old(self) -> None:
        """Remove the old runs."""
        for one in self.old:
            one.drop()

    def _make_room(self) -> None:
        """Tell what a resumed run changes; remove what is in the way."""
        if self.again:
            log.info("the run had no checkpoint yet: it begins anew")
            say_changes(self.folder, self.cfg)
            self.folder.write_configs(self.cfg.to_yaml(), None)  # first, so that it can be resumed again
            self.folder.clear(keep_recipe=True)
        elif self.resume is not None:
            say_changes(RunFolder(self.resume.parent.parent), self.cfg)
            if self.folder.holds(self.resume):
                self.folder.forget_end()
            set_later_aside(self.folder, self.resume)
        if self.overwrite and not self.again and not self.folder.holds(self.resume):
            self.here.set_aside()
        if self.folder.root.is_dir():
            remove_leftovers(self.folder.root)

    def _make_trainer(self) -> Trainer:
        settings = plain(self.cfg.trainer)
        shares = isinstance(self.data, BaseDataModule)
        more = several_processes(check_trainer(settings), self.system.skips_parameters, shares)
        settings |= more
        if self.mode != "train":
            callbacks = [BatchBoundaries(self.cfg.seed), self.interrupt, *self._average()]
            return make_trainer(settings, self.training, self.folder, callbacks, [])
        made = make_loggers(self.training, self.folder, self.cfg, self.ending)
        loggers = [*made, *self.system.get_loggers()]
        callbacks = [
            BatchBoundaries(self.cfg.seed),
            self.interrupt,
            AfterFirstStep(self.heed_early_stop),
            *self._average(),
            *craft_callbacks(self.training),
            *standard_callbacks(self.training, self.folder, self.listeners, loggers, self.cfg),
            *recipe_checkpoints(plain(self.cfg.checkpoint), self.folder),
            LastCheckpoint(
                self.folder.ckpts, self.training.checkpoint_every, lambda: by_leader(self.drop_old)
            ),
            *self.tools.callbacks(self.folder),
        ]
        return make_trainer(settings, self.training, self.folder, callbacks, loggers)

    def _try_optimizers(self) -> None:
        """Find mistakes in them; the Trainer makes its own when files have been written."""
        with suppress(RuntimeError):  # they ask for something that only the Trainer gives
            self.system.configure_optimizers()

    def _average(self) -> list[EMA]:
        ema = self.training.ema
        return [EMA(ema.decay, ema.every)] if ema.enabled else []

    def _kept_averages(self) -> list[EMA]:
        return [one for one in self.trainer.callbacks if isinstance(one, EMA)]

    def _restore_average(self, checkpoint: dict[str, Any]) -> None:
        for average in self._kept_averages():  # the Trainer restores callbacks only for training
            state = checkpoint.get("callbacks", {}).get(average.state_key, {})
            average.load_state_dict(state)
            if not state:
                log.warning("%s has no running average: its weights are used as they are", self.resume)

    def _does(self, step: str) -> bool:
        return getattr(type(self.system), step) is not getattr(LightningModule, step)

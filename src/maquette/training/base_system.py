"""The system: the model together with how it is trained, evaluated and exported."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from maquette.core.base import Updateable, update_end_if_possible, update_if_possible
from maquette.core.device import release_memory
from maquette.core.errors import ConfigError, asked_for_by
from maquette.core.log import get_logger
from maquette.core.random import RandomStreams
from maquette.core.schedule import C, Schedule
from maquette.core.structured import parse_structured
from maquette.training.config import TrainingConfig
from maquette.training.optimization.losses import check_loss_names
from maquette.training.optimization.optimizers import PLATEAU, parse_optimizer, parse_scheduler
from maquette.training.profiling.sections import Sections
from maquette.training.saving.mixin import SaverMixin
from maquette.training.weights import check_fits, latest, run_checkpoint

log = get_logger(__name__)


class BaseSystem(SaverMixin, Updateable, LightningModule):
    """What every trainable thing here is built on.

    For each batch, of training and evaluation alike, the order is: ``preprocess_data``, the dataset's
    ``update_step``, ``do_update_step`` (children first, each once), the ``*_step``, the dataset's
    ``update_step_end``, ``do_update_step_end``.

    Args:
        cfg: the ``system:`` block.
        resumed: whether a checkpoint follows; initialisations that it would overwrite may be skipped.
        seed: seed of all random draws of the run.
        mode: train, validate, test or export; what only training needs may be left out in the others.
    """

    kind: ClassVar[str] = "system"
    loss_names: ClassVar[Sequence[str]] = ()
    """Losses that are set in some steps only, perhaps not in the first one. A weight whose name is neither
    here nor set in the first step, and looks like one that is, is refused as mistyped."""

    skips_parameters: ClassVar[bool] = False
    """Whether some parameters get no gradient in some steps. Several processes, which exchange gradients,
    then look in every step for those that none of them has used."""

    @dataclass(kw_only=True)
    class Config:
        """How the model is trained; the model itself is the subclass's."""

        loggers: dict[str, Any] = field(default_factory=dict)
        """``wandb: {enable, project, name}``: as ``wandb`` in ``training.loggers``, and the settings of
        ``training.logging.wandb``."""

        loss: dict[str, Any] = field(default_factory=dict)
        """Weights ``lambda_NAME`` of the losses ``loss_NAME``; each a number or a schedule."""

        optimizer: dict[str, Any] = field(default_factory=dict)
        """``{name, args, params}``, see :func:`maquette.training.optimization.optimizers.parse_optimizer`."""

        scheduler: dict[str, Any] | None = None
        """``{name, interval, args}``, see `parse_scheduler` in `training.optimization.optimizers`."""

        weights: str | None = None
        """A checkpoint whose weights are loaded, as far as they fit; the step is not continued. A run folder
        ``tag@LAST`` is the newest of its tag."""

        weights_ignore_modules: list[str] | None = None
        """Modules, by dotted path, that do not take their weights from ``weights``."""

        cleanup_after_validation_step: bool = False
        """Give unused memory back after each validation batch."""

        cleanup_after_test_step: bool = False
        """Give unused memory back after each test batch."""

    cfg: Config

    def __init__(
        self, cfg: Mapping[str, Any] | None, resumed: bool = False, seed: int = 0, mode: str = "train"
    ) -> None:
        super().__init__()
        self.cfg = parse_structured(type(self).Config, cfg or {}, key="system")
        self.streams = RandomStreams(seed)
        self.mode = mode
        self.engine = TrainingConfig()
        self.sections = Sections()
        self.loss_weights = _parse_weights(self.cfg.loss)
        self.create_loggers(self.cfg.loggers)
        self._resumed = resumed
        self._resumed_eval = False
        self._resumed_eval_status = {"current_epoch": 0, "global_step": 0}
        self.taken: set[str] = set()
        """Parameters, by qualified name, whose values come from a file."""
        self._losses: dict[str, Tensor] = {}
        self._losses_checked = False
        self._batch_open = False
        self.configure()
        if self.cfg.weights is not None:
            with asked_for_by("system.weights"):
                self.load_weights(self.cfg.weights, self.cfg.weights_ignore_modules)
        self.post_configure()

    # what a subclass provides -------------------------------------------------------------------------------

    def configure(self) -> None:
        """Build the modules."""

    def post_configure(self) -> None:
        """Anything that needs the modules with their weights."""

    def preprocess_data(self, batch: Any, stage: str) -> None:
        """Change the batch in place before it is used; ``stage`` is train, validation, test or predict."""

    def finish(self, folder: Path) -> list[Path]:
        """Leave the results at the top of the run folder, made from what was exported."""
        return []

    @classmethod
    def following(cls, cfg: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
        """Changes of the ``system:`` block for a stage that follows the one that writes ``checkpoint``."""
        return {}

    # step and weights ---------------------------------------------------------------------------------------

    @property
    def resumed(self) -> bool:
        """Whether the run continues from a checkpoint."""
        return self._resumed

    resume = resumed
    """The same, by another name of it."""

    @property
    def true_global_step(self) -> int:
        """Optimiser steps the weights have seen, also when a checkpoint is only evaluated."""
        return self._resumed_eval_status["global_step"] if self._resumed_eval else self.global_step

    @property
    def true_current_epoch(self) -> int:
        """Epoch of the weights, also when a checkpoint is only evaluated."""
        return self._resumed_eval_status["current_epoch"] if self._resumed_eval else self.current_epoch

    def set_resume_status(self, current_epoch: int, global_step: int) -> None:
        """Declare which step the weights are from; the Trainer restores it only for training."""
        self._resumed_eval = True
        self._resumed_eval_status = {"current_epoch": current_epoch, "global_step": global_step}

    def C(self, value: Any) -> float:  # noqa: N802 (the ecosystem's name)
        """The present value of a number or schedule."""
        return C(value, self.true_current_epoch, self.true_global_step)

    def loss_weight(self, name: str) -> float:
        """The present weight of ``loss_NAME``.

        Raises:
            ConfigError: the recipe has no ``lambda_NAME``.
        """
        schedule = self.loss_weights.get(f"lambda_{name}")
        if schedule is None:
            raise ConfigError(
                f"system.loss.lambda_{name}",
                None,
                f"the weight of loss_{name}: a number or a schedule",
                f"add it (0.0 switches it off); there are: {', '.join(self.loss_weights) or 'none'}",
            )
        return schedule.at(self.true_global_step, self.true_current_epoch)

    def load_weights(self, weights: str, ignore_modules: Sequence[str] | None = None) -> None:
        """Take the weights of a checkpoint as far as the names agree; the modules are told its step.

        Raises:
            UserError: no name agrees, or a weight has another shape.
        """
        checkpoint = run_checkpoint(latest(weights))
        ignored = tuple(f"{name}." for name in ignore_modules or ())
        state = {key: value for key, value in checkpoint["state_dict"].items() if not key.startswith(ignored)}
        check_fits(self, state, weights, partial=True)
        missing, unknown = self.load_state_dict(state, strict=False)
        self.taken |= set(state) - set(unknown)
        taken = len(state) - len(unknown)
        log.info(
            "weights of %s: %d taken, %d missing, %d unknown", weights, taken, len(missing), len(unknown)
        )
        self.do_update_step(
            checkpoint.get("epoch", 0), checkpoint.get("global_step", 0), on_load_weights=True
        )

    # losses -------------------------------------------------------------------------------------------------

    def set_loss(self, name: str, value: Tensor) -> None:
        """Add ``loss_NAME`` to the sum of this step; it is logged, and weighted with ``lambda_NAME``."""
        weight = self.loss_weight(name)
        self.log(f"train/loss_{name}", value.detach() if isinstance(value, Tensor) else value)
        if self._logs_now():
            self.log(f"train_params/lambda_{name}", weight)
        self._losses[name] = value * weight

    def total_loss(self) -> Tensor:
        """The weighted sum of the losses set in this step; the next step begins with none."""
        self._check_loss_names()
        total = sum(self._losses.values(), start=torch.zeros((), device=self.device))
        self._losses = {}
        self.log("train/loss", total.detach(), prog_bar=True)
        return total

    def _check_loss_names(self) -> None:
        """Raise an UnknownKeyError in the first step for the mistyped weight of a loss."""
        if not self._losses_checked:
            self._losses_checked = True
            declared = [*self.loss_names, *getattr(self, "shape_losses", ())]
            check_loss_names(self.loss_weights, self._losses, declared)

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        """Log a value as Lightning does; what an evaluation finds is the mean over all processes."""
        trainer = self._trainer
        if trainer is not None and trainer.world_size > 1 and not trainer.training:
            kwargs.setdefault("sync_dist", True)
        super().log(name, value, *args, **kwargs)

    def timed(self, part: str) -> AbstractContextManager[Any]:
        """A block of the step whose time the logs show as ``part``; the innermost block counts."""
        return self.sections.section(part)

    def _logs_now(self) -> bool:
        """Whether this step is written to the logs; in the others no weight is copied to the device."""
        trainer = self._trainer
        return trainer is None or trainer._logger_connector.should_update_logs

    # Lightning's hooks --------------------------------------------------------------------------------------

    def configure_optimizers(self) -> dict[str, Any]:
        """The optimizer and, if there is one, the scheduler of the config."""
        if not self.cfg.optimizer:
            raise ConfigError(
                "system.optimizer", None, "a block {name, args} such as {name: Adam, args: {lr: 0.01}}"
            )
        return self.with_scheduler(parse_optimizer(self.cfg.optimizer, self))

    def with_scheduler(self, optimizer: Optimizer) -> dict[str, Any]:
        """What Lightning is given: the optimizer and, if there is one, the scheduler of the config."""
        if self.cfg.scheduler is None:
            return {"optimizer": optimizer}
        parsed = parse_scheduler(self.cfg.scheduler, optimizer)
        own = {"frequency": 1, "strict": False}  # lr_scheduler_step and `Plateau` count and look themselves
        return {"optimizer": optimizer, "lr_scheduler": parsed | own}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a scheduler when its ``frequency`` of optimiser steps, or epochs, has come; one that waits for
        a number is stepped by :class:`maquette.training.callbacks.plateau.Plateau`.
        """
        block = self.cfg.scheduler or {}
        done = self.global_step if block.get("interval", "epoch") == "step" else self.current_epoch + 1
        if block.get("name") != PLATEAU and done % block.get("frequency", 1) == 0:
            super().lr_scheduler_step(scheduler, metric)

    def on_train_batch_start(self, batch: Any, batch_idx: int, unused: int = 0) -> None:
        """Prepare the batch and bring every module to the present step."""
        self._begin_batch(batch, "train", self.trainer.train_dataloader)
        self._batch_open = True

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Prepare the batch and bring every module to the present step."""
        self._begin_batch(batch, "validation", self.trainer.val_dataloaders)

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Prepare the batch and bring every module to the present step."""
        self._begin_batch(batch, "test", self.trainer.test_dataloaders)

    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Prepare the batch and bring every module to the present step."""
        self._begin_batch(batch, "predict", self.trainer.predict_dataloaders)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Tell every module that the step is over, unless the engine has done so."""
        self.end_train_batch()

    def end_train_batch(self) -> None:
        """Tell every module that the step is over, once a batch: before averages and checkpoints are made."""
        if self._batch_open:
            self._batch_open = False
            self._end_batch(self.trainer.train_dataloader)

    def on_validation_batch_end(
        self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Tell every module that the step is over."""
        self._end_batch(self.trainer.val_dataloaders, self.cfg.cleanup_after_validation_step)

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Tell every module that the step is over."""
        self._end_batch(self.trainer.test_dataloaders, self.cfg.cleanup_after_test_step)

    def on_predict_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Tell every module that the step is over."""
        self._end_batch(self.trainer.predict_dataloaders)

    def _begin_batch(self, batch: Any, stage: str, loaders: Any) -> None:
        self._has_own_views = stage != "train"
        self.preprocess_data(batch, stage)
        update_if_possible(_dataset(loaders), self.true_current_epoch, self.true_global_step)
        self.do_update_step(self.true_current_epoch, self.true_global_step)

    def _end_batch(self, loaders: Any, cleanup: bool = False) -> None:
        self._has_own_views = False
        update_end_if_possible(_dataset(loaders), self.true_current_epoch, self.true_global_step)
        self.do_update_step_end(self.true_current_epoch, self.true_global_step)
        if cleanup:
            release_memory()


def _parse_weights(loss: Mapping[str, Any]) -> dict[str, Schedule]:
    weights = {name: value for name, value in loss.items() if str(name).startswith("lambda_")}
    return {name: Schedule.parse(value, key=f"system.loss.{name}") for name, value in weights.items()}


def _dataset(loaders: Any) -> Any:
    first = loaders[0] if isinstance(loaders, list) and loaders else loaders
    return getattr(first, "dataset", None)

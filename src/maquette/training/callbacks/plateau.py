"""A learning rate that falls when a logged number stops falling, in a resumed run as in any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import lr_scheduler

from maquette.core.errors import ConfigError

KEY = "system.scheduler.monitor"


class Plateau(Callback):
    """Steps ``ReduceLROnPlateau`` when the next step begins: after the validation, as the Trainer does.

    The Trainer's own update comes after the checkpoints of a step are written, and a run that goes on from
    one of them would miss it. Here a checkpoint holds the number that the update is waiting for. Several
    processes use its mean.

    Args:
        block: ``system.scheduler`` of the recipe.
    """

    def __init__(self, block: Mapping[str, Any]) -> None:
        self.monitor = str(block.get("monitor"))
        self.by_step = block.get("interval", "epoch") == "step"
        self.every = block.get("frequency", 1)  # looked over with the optimizer, before the first step
        self.strict = bool(block.get("strict", True))
        self._updated = 0
        self._value: float | None = None
        self._trainer: Trainer | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Know the Trainer, whose numbers a checkpoint takes along."""
        self._trainer = trainer

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Update the rates where the steps, or epochs, that are done make it due.

        Raises:
            ConfigError: nothing logs the number.
        """
        done = trainer.global_step if self.by_step else trainer.current_epoch
        if done == self._updated:
            return
        self._updated = done
        if done % self.every:
            return
        value = self._monitored(trainer)
        if value is None and self.strict:
            logged = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            raise ConfigError(KEY, self.monitor, f"a number that has been logged by now; there are: {logged}")
        for config in trainer.lr_scheduler_configs if value is not None else ():
            if isinstance(config.scheduler, lr_scheduler.ReduceLROnPlateau):
                config.scheduler.step(value)

    def state_dict(self) -> dict[str, Any]:
        """What the last update was for, and the number that the next one may be waiting for."""
        value = self._value if self._trainer is None else self._monitored(self._trainer)
        return {"updated": self._updated, "value": value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._updated = int(state_dict.get("updated", 0))
        self._value = state_dict.get("value")

    def _monitored(self, trainer: Trainer) -> float | None:
        """The number as it was logged last, in this run or in the one it continues."""
        value = trainer.callback_metrics.get(self.monitor)
        if value is not None:
            self._value = float(trainer.strategy.reduce(value, reduce_op="mean"))
        return self._value

"""The base of callbacks that act once a step of the optimizer, not once a batch."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class StepCallback(Callback):
    """A callback that does something after a step; several batches may make one, where gradients add up."""

    step = 0
    """How many steps there have been."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that is resumed has steps already."""
        self.step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Find out whether the batch has ended a step."""
        if trainer.global_step != self.step:
            self.step = trainer.global_step
            self.on_step_end(trainer, pl_module)

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A step has been taken."""

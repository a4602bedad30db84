"""A loss that is no number any more ends the run, with its cause."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from maquette.core.errors import CollapseError


class FiniteLoss(Callback):
    """Raises as soon as the loss is found not finite."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.last_loss = math.nan

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the loss every so many steps, and at the last one.

        Raises:
            CollapseError: it is infinite or not a number.
        """
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is None or not self._due(trainer):
            return
        self.last_loss = float(loss)
        if not math.isfinite(self.last_loss):
            raise CollapseError(
                f"the loss is {self.last_loss} at step {trainer.global_step}",
                _terms(trainer),
                "lower the learning rate, set trainer.gradient_clip_val=1.0, or use trainer.precision=32",
            )

    def _due(self, trainer: Trainer) -> bool:
        return trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps


def _terms(trainer: Trainer) -> list[str]:
    metrics = trainer.callback_metrics
    return [
        f"{name} = {float(value):.4g}" for name, value in metrics.items() if name.startswith("train/loss")
    ]

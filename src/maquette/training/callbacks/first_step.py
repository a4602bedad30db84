"""When a run has shown that it works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class FirstStep(Callback):
    """Does something, in the leading process, after the first step of the optimizer that a run takes."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act
        self._begin = 0
        self._done = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from here, as a run that is resumed has steps already."""
        self._begin = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A batch that only adds to the gradients ends no step."""
        if not self._done and trainer.global_step > self._begin:
            self._done = True
            if trainer.is_global_zero:
                self.act()

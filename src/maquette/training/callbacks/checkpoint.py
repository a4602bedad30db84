"""The checkpoint a run is resumed from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from maquette.core.errors import CollapseError
from maquette.core.paths import atomic_path


class LastCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` every so many steps, at the end, and when the run breaks; whole or not at all.

    A collapsed run is not written: the checkpoint before it is worth more.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.path = folder / "last.ckpt"
        self.every = every
        self._saved_step = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when the step is due."""
        if trainer.global_step % self.every == 0:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what the last step left."""
        self.save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what can be saved of a run that breaks."""
        if trainer.training and not isinstance(exception, CollapseError):
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint unless this step has one."""
        if trainer.global_step == self._saved_step:
            return
        with atomic_path(self.path) as temporary:
            trainer.save_checkpoint(temporary)
        self._saved_step = trainer.global_step

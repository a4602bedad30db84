"""The checkpoint a run is resumed from, and how every checkpoint is written and read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from maquette.core.errors import CollapseError, RunFailed, UserError
from maquette.core.loading import load_checkpoint
from maquette.core.paths import atomic_path
from maquette.training.callbacks.ema import EMA
from maquette.training.callbacks.step_callback import StepCallback


class WholeCheckpoints(TorchCheckpointIO):
    """Every checkpoint of a Trainer, those of `ModelCheckpoint` too, is written whole or not at all, and is
    read as tensors and plain values only.

    Args:
        average: the running average of the weights, which checkpoints of weights alone hold too.
    """

    def __init__(self, average: EMA | None = None) -> None:
        super().__init__()
        self.average = average

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint; the one of that name before it stays until the new one is complete.

        Raises:
            RunFailed: it holds something that `load_checkpoint` would refuse.
        """
        if self.average is not None and "callbacks" not in checkpoint:
            state = {self.average.state_key: self.average.state_dict()}
            checkpoint = {**checkpoint, "callbacks": state}
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)
            try:
                load_checkpoint(temporary, mapped=True)
            except UserError as err:
                raise RunFailed(
                    f"The checkpoint {path} was not written: nobody could load it.",
                    ["a callback or module keeps something besides tensors and plain values in its state"],
                    "keep numbers, texts, lists, mappings and tensors in state_dict",
                ) from err

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The content, on the CPU.

        Raises:
            UserError: it is damaged, or holds objects that could run code when loaded.
        """
        return load_checkpoint(path)


class LastCheckpoint(StepCallback, Checkpoint):
    """Writes ``last.ckpt`` every so many steps, at the end, and when the run breaks.

    A collapsed run is not written: the checkpoint before it is worth more. Neither is one that breaks within
    a step: some modules (an occupancy grid, say) have changed already, so that it could not go on exactly.

    Args:
        folder: where it is written.
        every: steps from one to the next.
        when_written: done after each that is written because it was due, by all processes.
    """

    def __init__(self, folder: Path, every: int, when_written: Callable[[], None] = lambda: None) -> None:
        self.path = folder / "last.ckpt"
        self.every = every
        self.when_written = when_written
        self._saved_step = 0
        self._between_steps = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The step that a run is resumed from has its checkpoint."""
        super().on_train_start(trainer, pl_module)
        self._saved_step = self.step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """From here on the step is half done."""
        self._between_steps = False

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save when the step is due."""
        self._between_steps = True
        if self.step % self.every == 0:
            self.save(trainer)
            self.when_written()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what the last step left."""
        if trainer.global_step != self._saved_step or (trainer.global_step and not self.path.is_file()):
            self.save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what can be saved of a run that breaks; several processes do not break together."""
        exact = self._between_steps and trainer.global_step != self._saved_step and trainer.world_size == 1
        if trainer.training and exact and not isinstance(exception, CollapseError):
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint."""
        self._saved_step = trainer.global_step  # first: what cannot be written is not tried again
        trainer.save_checkpoint(self.path)

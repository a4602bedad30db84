"""What the engine does at the beginning and the end of every batch, before any other callback does."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from maquette.core.random import seed_global


def _seeding(stage: str) -> Any:
    """The hook that seeds the global generators before a batch of an evaluation."""

    def hook(
        self: BatchBoundaries,
        trainer: Trainer,
        module: LightningModule,
        batch: Any,
        number: int,
        loader: int = 0,
    ) -> None:
        seed_global(self.seed, f"{stage}/{number}", 0, trainer.global_rank)

    return hook


class BatchBoundaries(Callback):
    """Makes a batch a function of the weights and of its number; the first of the callbacks.

    Nothing of ours draws from the global generators, but layers such as dropout and the code of others do.
    They are seeded for each batch by its step, so that what they draw depends neither on where a run was
    resumed nor on what else drew before (a validation, say).

    The modules are told of the end of a step before averages are taken and checkpoints written. Where several
    processes share the views of an evaluation, all of them are saved before its end is announced, when a
    video may be made of them.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the global generators."""
        part = batch_idx % int(trainer.accumulate_grad_batches)
        seed_global(self.seed, f"train/{part}", trainer.global_step, trainer.global_rank)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let the modules do what is due after the step."""
        end = getattr(pl_module, "end_train_batch", None)
        if end is not None:
            end()

    on_validation_batch_start = _seeding("validation")
    on_test_batch_start = _seeding("test")
    on_predict_batch_start = _seeding("predict")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the views of the other processes."""
        trainer.strategy.barrier()

    on_test_epoch_end = on_predict_epoch_end = on_validation_epoch_end

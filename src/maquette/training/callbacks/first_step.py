"""When a run has shown that it works."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer

from maquette.training.callbacks.steps import StepCallback


class FirstStep(StepCallback):
    """Does something, in the leading process, after the first step that a run takes."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act: Callable[[], None] | None = act

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Once."""
        act, self.act = self.act, None
        if act is not None and trainer.is_global_zero:
            act()

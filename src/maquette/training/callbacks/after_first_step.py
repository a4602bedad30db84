"""What is done once, when a run has taken its first step."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer

from maquette.training.callbacks.step_callback import StepCallback


class AfterFirstStep(StepCallback):
    """Does something after the first step that a run takes; several processes do it together."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act: Callable[[], None] | None = act

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Once."""
        act, self.act = self.act, None
        if act is not None:
            act()

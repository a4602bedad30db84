"""A run that has only so much time."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from maquette.core.log import get_logger
from maquette.training.callbacks.step_callback import StepCallback

log = get_logger(__name__)


class TimeBudget(StepCallback):
    """Ends the optimisation after the first step that exceeds the budget; what follows it still runs.

    The checkpoint keeps the seconds that all parts of the run have spent optimising, ``spent``; the budget
    counts from where this part began.

    Args:
        seconds: the budget; None for no end.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.reached = False
        self._before = 0.0
        self._begin: float | None = None

    @property
    def spent(self) -> float:
        """Seconds of optimisation so far, with those before a resumption."""
        return self._before + self._elapsed()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The clock starts."""
        super().on_train_start(trainer, pl_module)
        self._begin = time.monotonic()

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop when the time is used up; several processes stop together."""
        if self.seconds is None or self.reached:
            return
        over = self._elapsed() > self.seconds
        if trainer.world_size > 1:
            over = trainer.strategy.reduce_boolean_decision(over, all=False)
        if over and trainer.global_step != trainer.max_steps:
            self.reached = trainer.should_stop = True
            log.info("The time budget is used up at step %d; resume the run to go on.", trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """The seconds spent."""
        return {"spent": self.spent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._before = float(state_dict.get("spent", 0.0))

    def _elapsed(self) -> float:
        return 0.0 if self._begin is None else time.monotonic() - self._begin


def out_of_time(callbacks: Iterable[Callback]) -> bool:
    """Whether the budget ended the optimisation."""
    return any(one.reached for one in callbacks if isinstance(one, TimeBudget))

"""The stream of progress that the bar, a web page and a fleet all read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from maquette.core.progress import ProgressEvent, ProgressListener


class Progress(Callback):
    """Tells the listeners how far the optimisation is, at most ten times a second.

    The first step compiles kernels and is left out of the rate; its phase is ``compiling``.
    """

    interval = 0.1

    def __init__(self, listeners: Sequence[ProgressListener]) -> None:
        self.listeners = listeners
        self._begin_step = 0
        self._begin_time = 0.0
        self._told = 0.0

    def tell(self, event: ProgressEvent) -> None:
        """Pass an event on to everyone."""
        for listener in self.listeners:
            listener(event)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first step is about to compile."""
        self._begin_step = trainer.global_step
        step, total = trainer.global_step, total_steps(trainer)
        self.tell(ProgressEvent(step=step, total=total, rate=0.0, eta=None, phase="compiling"))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One step further."""
        now = time.perf_counter()
        done = trainer.global_step - self._begin_step
        if done <= 1:
            self._begin_time = now
        finished = trainer.global_step == total_steps(trainer)
        if now - self._told >= self.interval or finished:
            self._told = now
            self.tell(self._event(trainer, done, now))

    def _event(self, trainer: Trainer, done: int, now: float) -> ProgressEvent:
        total = total_steps(trainer)
        seconds = now - self._begin_time
        rate = (done - 1) / seconds if done > 1 and seconds > 0 else 0.0
        eta = (total - trainer.global_step) / rate if rate and total else None
        metrics = {name: float(value) for name, value in trainer.progress_bar_metrics.items()}
        return ProgressEvent(
            step=trainer.global_step, total=total, rate=rate, eta=eta, phase="optimising", metrics=metrics
        )


def total_steps(trainer: Trainer) -> int:
    """Steps the run will take; 0 where only the number of epochs is known."""
    return max(trainer.max_steps, 0)

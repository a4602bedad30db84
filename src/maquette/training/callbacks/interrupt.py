"""Ctrl-C: once is a wish to stop and keep what is there, twice is an order. SIGTERM: a wish in a hurry."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lightning.pytorch import LightningModule, Trainer

from maquette.core.log import get_logger
from maquette.core.processes import TERMINATED, world_size
from maquette.training.callbacks.step_callback import StepCallback

log = get_logger(__name__)


class Abort(BaseException):
    """The second Ctrl-C; no KeyboardInterrupt, which the Trainer would turn into an exit code of its own."""


class Interrupt(StepCallback):
    """Stops the optimisation at the end of the step in which Ctrl-C was pressed, or SIGTERM came.

    Outside the optimisation there is no step to finish: the first of them ends the program.
    """

    def __init__(self) -> None:
        self.requested = False
        """Whether the run is to end early."""
        self.terminated = False
        """Whether that is because of SIGTERM: the step is kept, and nothing else is begun."""
        self._optimising = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals inside the block; threads other than the main one cannot, and do not. One of
        several processes leaves SIGTERM to `together`, which ends it at once.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {signal.SIGINT: signal.signal(signal.SIGINT, self._on_ctrl_c)}
        if world_size() == 1:
            before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._on_termination)
        try:
            yield
        except Abort as abort:
            raise KeyboardInterrupt from abort
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a step can be finished. The Trainer has its own answer to SIGTERM, which ends the run
        without a word; it is replaced by ours.
        """
        super().on_train_start(trainer, pl_module)
        self._optimising = True
        if threading.current_thread() is threading.main_thread() and trainer.world_size == 1:
            signal.signal(signal.SIGTERM, self._on_termination)

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop if it was asked for; all processes do."""
        self._agree(trainer)
        if self.requested:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """No step is left to wait for."""
        self._optimising = False
        self._agree(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """No step is left to wait for."""
        self._optimising = False

    def _agree(self, trainer: Trainer) -> None:
        if trainer.world_size > 1:
            self.requested = trainer.strategy.reduce_boolean_decision(self.requested, all=False)

    def _on_termination(self, signum: int, frame: FrameType | None) -> None:
        if self.terminated or not self._optimising:
            raise SystemExit(TERMINATED)
        self.requested = self.terminated = True
        log.warning("SIGTERM: stopping after this step, with a checkpoint; nothing is exported.")

    def _on_ctrl_c(self, signum: int, frame: FrameType | None) -> None:
        if self.requested or not self._optimising:
            raise Abort
        self.requested = True
        log.warning(
            "Stopping after this step; the asset so far will be exported. Ctrl-C again to abort at once."
        )

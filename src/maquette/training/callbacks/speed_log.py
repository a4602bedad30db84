"""How fast a run is, where the time of a step goes, and how much memory it holds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import PassThroughProfiler

from maquette.core.device import memory_in_use
from maquette.training.callbacks.step_callback import StepCallback
from maquette.training.observing import LoggingConfig
from maquette.training.profiling.sections import SectionProfiler, Sections


class SpeedLog(StepCallback):
    """Logs ``speed/steps_per_second``, ``time_ms/PART`` (means a step) and ``memory_gb/...`` with the losses.

    The first step, which compiles kernels, is left out. A Trainer that was given a profiler of its own keeps
    it; then only the parts that the system marks are known.
    """

    def __init__(self, cfg: LoggingConfig) -> None:
        self.cfg = cfg
        self.totals: dict[str, float] = {}
        """Seconds of all steps but the first, by part."""
        self.steps = 0
        """How many these are."""
        self._sections: Sections | None = None
        self._counted = 0
        self._since = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have the Trainer mark its parts."""
        sections = getattr(pl_module, "sections", None)
        if stage != "fit" or not self.cfg.timing or sections is None:
            return
        self._sections = sections
        if isinstance(trainer.profiler, PassThroughProfiler):
            trainer.profiler = SectionProfiler(sections)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first step begins."""
        super().on_train_start(trainer, pl_module)
        self.steps = self._counted = -1
        self._since = time.perf_counter()
        if self._sections is not None:
            self._sections.start(self.cfg.synchronize)

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log when the scalars are logged."""
        self.steps += 1
        if self.steps == 0:
            self._restart()
        elif trainer._logger_connector.should_update_logs:
            step = trainer.fit_loop.epoch_loop._batches_that_stepped
            metrics = self._metrics(self.steps - self._counted)
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop the clock."""
        self._close()

    def _restart(self) -> Mapping[str, float]:
        self._counted = self.steps
        self._since = time.perf_counter()
        return self._sections.take() if self._sections is not None else {}

    def _metrics(self, steps: int) -> dict[str, float]:
        seconds = time.perf_counter() - self._since
        parts = self._restart()
        self._add(parts)
        metrics = {"speed/steps_per_second": steps / seconds}
        metrics |= {f"time_ms/{name}": 1e3 * value / steps for name, value in parts.items()}
        if self.cfg.memory:
            metrics |= {f"memory_gb/{name}": value for name, value in memory_in_use().items()}
        return metrics

    def _add(self, parts: Mapping[str, float]) -> None:
        for name, value in parts.items():
            self.totals[name] = self.totals.get(name, 0.0) + value

    def _close(self) -> None:
        if self._sections is not None and self._sections.running:
            self._sections.stop()
            self._add(self._sections.take())


def step_seconds(callbacks: Iterable[Callback]) -> dict[str, float]:
    """Mean seconds a step, by part, largest first; without the first step."""
    for one in callbacks:
        if isinstance(one, SpeedLog) and one.steps > 0:
            parts = sorted(one.totals.items(), key=lambda part: -part[1])
            return {name: round(value / one.steps, 6) for name, value in parts}
    return {}

"""Memory that is never given back: found by counting tensors, and named."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from maquette.core.log import get_logger
from maquette.training.callbacks.step_callback import StepCallback
from maquette.training.observing import GrowthConfig
from maquette.training.profiling.tensors import (
    Census,
    CreationPlaces,
    Kind,
    holder,
    kind_of,
    live_tensors,
    take_census,
)

log = get_logger(__name__)

SHOWN = 3
"""Kinds of tensors, and lines, that a warning names."""


class GrowthWatch(StepCallback):
    """Counts the living tensors that no module and no optimizer owns, and warns once when there are more and
    more of them: which kind, who holds them, which lines make them.

    A look visits every object of the process; however often it is asked for, it takes at most ``share`` of
    the time.
    """

    share = 0.01

    def __init__(self, cfg: GrowthConfig, cost: float = 0.2) -> None:
        self.cfg = cfg
        self.warning: str | None = None
        self._cost = cost
        self._looked = 0.0
        self._first = self._last = Census()
        self._rises = 0
        self._places: CreationPlaces | None = None
        self._tracing = False
        self._traced = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The time before the first look runs."""
        super().on_train_start(trainer, pl_module)
        self._looked = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """When there is a suspicion, see who makes the tensors of one step."""
        if self._suspects and self._places is None and self.warning is None:
            self._places = CreationPlaces()
            self._places.__enter__()
            self._tracing = True
            self._traced = self.step

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look when it is due; tell two steps after the one whose tensors were traced."""
        if self._places is not None and self.warning is None:
            self._stop_tracing()
            if self.step > self._traced + 2:
                self._tell(pl_module, self._places.surviving())
        elif self.step % self.cfg.every == 0 and self.warning is None and not self._too_soon():
            begin = time.perf_counter()
            self._look(take_census(pl_module, trainer.optimizers))
            self._looked = time.perf_counter()
            self._cost = self._looked - begin

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell what is known."""
        self._stop_tracing()
        if self._suspects and self.warning is None:
            self._tell(pl_module, Counter())

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing switched on."""
        self._stop_tracing()

    @property
    def _suspects(self) -> Counter[Kind]:
        """The kinds of which there are more now, if that has gone on for long enough."""
        first, last = self._first, self._last
        if self._rises < self.cfg.rises or not (
            last.graphs > first.graphs or self._gained >= self.cfg.megabytes
        ):
            return Counter()
        if last.graphs > first.graphs:
            return Counter({kind: n for kind, n in (last.count - first.count).items() if kind.graph})
        return last.count - first.count

    def _look(self, census: Census) -> None:
        """Count the looks in a row of which each found more than the one before; the first finds anything."""
        before = self._last
        grown = before.count and (census.graphs > before.graphs or census.total > before.total)
        self._rises = self._rises + 1 if grown else 0
        self._first = self._first if grown else census
        self._last = census

    @property
    def _gained(self) -> float:
        """Megabytes more than at the beginning of the rise."""
        return (self._last.total - self._first.total) / 1e6

    def _too_soon(self) -> bool:
        return time.perf_counter() - self._looked < self._cost / self.share

    def _stop_tracing(self) -> None:
        if self._places is not None and self._tracing:
            self._tracing = False
            self._places.__exit__(None, None, None)

    def _tell(self, model: LightningModule, lines: Counter[str]) -> None:
        text = [f"Memory grows: tensors that nothing needs stay alive ({self._gained:+.1f} MB)."]
        suspects = self._suspects
        for kind, number in suspects.most_common(SHOWN):
            one = next((one for one in live_tensors() if kind_of(one) == kind), None)
            held = holder(one, model) if one is not None else None
            text.append(f"  {number} more of {kind}" + (f", held by {held}" if held else ""))
        text += [f"  made at {line} ({number} a step)" for line, number in lines.most_common(SHOWN)]
        if any(kind.graph for kind in suspects):
            text.append(
                "  Hint: a graph is kept with all that its backward pass needs: .detach() what is kept"
            )
        self.warning = "\n".join(text)
        log.warning(self.warning)

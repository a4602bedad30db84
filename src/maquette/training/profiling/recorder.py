"""PyTorch's profiler over a few steps: a trace for a viewer, a table to read, memory over time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from maquette.core.device import (
    current_device,
    dump_memory_history,
    is_gpu,
    profiler_activities,
    record_memory_history,
    synchronize,
)
from maquette.core.log import get_logger
from maquette.core.paths import atomic_path
from maquette.training.profiling.memory_page import memory_page

log = get_logger(__name__)

SKIPPED = 2
"""Steps before the recording, where the run has so many: the first ones compile and fill caches."""
RECORDED = 4
"""Steps that are recorded; a trace of many is too large for viewers."""
ROWS = 40


class Recorder(Callback):
    """Records some steps and writes ``trace.json`` and ``profile.txt``, ``memory.html`` (and, on a GPU,
    ``memory.pickle`` for https://pytorch.org/memory_viz).

    A trace opens in ``chrome://tracing`` or https://ui.perfetto.dev.
    """

    def __init__(self, folder: Path, profile: bool, memory: bool, skipped: int = SKIPPED) -> None:
        self.folder = folder
        self.skipped = skipped
        self.profile = profile
        self.memory = memory
        self._begin = 0
        self._profiler: torch.profiler.profile | None = None
        self._done = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the steps."""
        left = trainer.max_steps - trainer.global_step if trainer.max_steps > 0 else self.skipped + 1
        self._begin = trainer.global_step + max(0, min(self.skipped, left - 1))
        self._done = not trainer.is_global_zero

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin and end with a step."""
        if self._profiler is None and not self._done and trainer.global_step >= self._begin:
            self._start(pl_module)
        elif trainer.global_step >= self._begin + RECORDED:
            self._finish(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A short run is recorded to its end."""
        self._finish(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep what there is, above all of a run that ran out of memory."""
        self._finish(pl_module)

    def _start(self, system: LightningModule) -> None:
        _show_parts(system, True)
        if self.memory:
            record_memory_history(True)
        self._profiler = torch.profiler.profile(
            activities=profiler_activities(),
            record_shapes=self.profile,
            profile_memory=self.memory,
            acc_events=True,
        )
        self._profiler.__enter__()

    def _finish(self, system: LightningModule) -> None:
        if self._profiler is None:
            return
        _show_parts(system, False)
        profiler, self._profiler, self._done = self._profiler, None, True
        synchronize()
        profiler.__exit__(None, None, None)
        with atomic_path(self.folder / "trace.json") as trace:
            profiler.export_chrome_trace(str(trace))
        if self.memory:
            self._write_memory(self.folder / "trace.json")
        if self.profile:
            _write(self.folder / "profile.txt", table(profiler))
        else:
            (self.folder / "trace.json").unlink()
        log.info("The recorded steps are in %s", self.folder)

    def _write_memory(self, trace: Path) -> None:
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
        _write(self.folder / "memory.html", memory_page(events))
        if is_gpu(current_device()):
            with atomic_path(self.folder / "memory.pickle") as temporary:
                dump_memory_history(temporary)
            record_memory_history(False)


def _show_parts(system: LightningModule, wanted: bool) -> None:
    """Have the parts of a step stand in the trace, where the system marks them."""
    sections = getattr(system, "sections", None)
    if sections is not None:
        sections.recorded = wanted


def table(profiler: torch.profiler.profile) -> str:
    """The functions that take most time by themselves, on the device that computes."""
    averages = profiler.key_averages(group_by_input_shape=False)
    order = "self_device_time_total" if is_gpu(current_device()) else "self_cpu_time_total"
    return str(averages.table(sort_by=order, row_limit=ROWS, max_name_column_width=60))


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

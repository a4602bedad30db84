"""What makes the program wait for its device: numbers read back, copies between devices, sizes that depend on
values; counted for some steps, by the line that asks for it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from maquette.core.device import current_device, is_gpu
from maquette.core.log import get_logger
from maquette.core.paths import atomic_path
from maquette.training.profiling.source_line import calling_line

log = get_logger(__name__)

aten = torch.ops.aten
READS = {
    aten._local_scalar_dense: "number read",
    aten.nonzero: "size depends on values",
    aten.masked_select: "size depends on values",
    aten._unique2: "size depends on values",
    aten.unique_dim: "size depends on values",
    aten.repeat_interleave: "size depends on values",
    aten.equal: "number read",
}
SKIPPED = 1
"""Steps before the audit: the first one compiles and fills caches."""
AUDITED = 10
"""Steps of the audit; with the default frequencies the logs are written in one of them."""


class SyncMode(TorchDispatchMode):
    """Counts, while it is active, what waits on a GPU; on the CPU the same calls are seen, and cost nothing
    there. Conversions between types are counted apart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str]] = Counter()
        """Number by (kind, source line)."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what was asked, and count it."""
        result = func(*args, **(kwargs or {}))
        kind = _kind(func, args, result)
        if kind is not None:
            self.found[kind, calling_line()] += 1
        return result


class SyncAudit(Callback):
    """Audits the steps from the second on, everything between them included, and writes a table."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mode = SyncMode()
        self._begun = 0
        self._entered = False
        self._done = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the steps from here."""
        self._begun = trainer.global_step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin and end with a step."""
        done = trainer.global_step - self._begun
        if done == SKIPPED and not self._done and trainer.is_global_zero:
            self._done = self._entered = True
            self.mode.__enter__()
        elif done == SKIPPED + AUDITED:
            self._finish(AUDITED)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Few steps are audited as far as they go."""
        self._finish(max(trainer.global_step - self._begun - SKIPPED, 1))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing switched on."""
        self._finish(max(trainer.global_step - self._begun - SKIPPED, 1))

    def _finish(self, steps: int) -> None:
        if not self._entered:
            return
        self._entered = False
        self.mode.__exit__(None, None, None)
        with atomic_path(self.path) as temporary:
            temporary.write_text(report(self.mode.found, steps), encoding="utf-8")
        reads = sum(number for (kind, _), number in self.mode.found.items() if kind != "type converted")
        log.info("Sync audit: %.1f waits a step; by line in %s", reads / steps, self.path)


def report(found: Counter[tuple[str, str]], steps: int) -> str:
    """The table, most frequent first."""
    lines = [f"{steps} steps audited; calls a step:", ""]
    lines += [f"{number / steps:9.1f}  {kind:24s}{place}" for (kind, place), number in found.most_common()]
    return "\n".join(lines if found else [*lines, "     none"]) + "\n"


def _waits(tensor: Tensor) -> bool:
    """Whether a tensor is on the device that computes: what lies on the host beside a GPU is free to read."""
    return is_gpu(tensor.device) or not is_gpu(current_device())


def _kind(func: Any, args: Any, result: Any) -> str | None:
    packet = func.overloadpacket
    if packet in READS:
        return READS[packet] if _waits(args[0]) else None
    if packet is aten.index and any(one is not None and one.dtype is torch.bool for one in args[1]):
        return READS[aten.nonzero]
    if packet is aten._to_copy:
        return "type converted" if args[0].device == result.device else "copy between devices"
    if packet is aten.copy_ and isinstance(args[1], Tensor) and args[0].device != args[1].device:
        return "copy between devices"
    return None

"""Where the time of a step goes: a stack of named parts, of which the innermost one is charged."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

from lightning.pytorch.profilers import Profiler
from torch.profiler import record_function

from maquette.core.device import synchronize

ENGINE = "engine"
"""What is left of a step when all other parts are taken away."""

VALIDATION = "validation"
PARTS = (
    "data", "update", "render", "guidance", "forward", "backward", "optimiser", "callbacks", "checkpoint",
    VALIDATION, ENGINE,
)  # fmt: skip
"""All parts, in the order in which they are shown."""

HOOKS = {
    "train_dataloader_next": "data",
    "batch_to_device": "data",
    "training_step": "forward",
    "backward": "backward",
    "optimizer_step": "optimiser",
    "optimizer_zero_grad": "optimiser",
    "configure_gradient_clipping": "optimiser",
    "lr_scheduler_step": "optimiser",
    "on_train_batch_start": "update",
    "on_train_batch_end": "update",
    "save_checkpoint": "checkpoint",
}
"""The Trainer's name of an action -> the part of the step whose time it is."""

_NOTHING: AbstractContextManager[Any] = nullcontext()


class Sections:
    """Seconds by part; off until ``start``, and free of charge until then."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.running = False
        self.wait = False
        """Wait for the device at each mark."""
        self.recorded = False
        """Whether a profiler records, which is to show the parts."""
        self._open: list[str] = []
        self._since = 0.0
        self._marks: dict[str, _Section] = {}

    def section(self, name: str) -> AbstractContextManager[Any]:
        """A block that is the part ``name``."""
        if not self.running:
            return _NOTHING
        mark = self._marks.get(name)
        if mark is None:
            mark = self._marks[name] = _Section(self, name)
        return mark

    def start(self, wait: bool = False) -> None:
        """Begin; everything outside of a part is the engine's."""
        self.running, self.wait = True, wait
        self.seconds, self._open, self._since = {}, [ENGINE], self._now()

    def stop(self) -> None:
        """Close the books."""
        self._charge()
        self.running, self._open = False, []

    def take(self) -> dict[str, float]:
        """The seconds since ``start`` or the last ``take``, by part."""
        self._charge()
        taken, self.seconds = self.seconds, {}
        return taken

    def enter(self, name: str) -> None:
        """A part begins inside the present one; validation is one part, whatever happens in it."""
        self._charge()
        self._open.append(VALIDATION if VALIDATION in self._open else name)

    def leave(self) -> None:
        """The present part ends."""
        self._charge()
        if len(self._open) > 1:
            self._open.pop()

    def _charge(self) -> None:
        now = self._now()
        if self._open:
            name = self._open[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    def _now(self) -> float:
        if self.wait:
            synchronize()
        return time.perf_counter()


class _Section:
    """Reusable, also inside itself."""

    def __init__(self, sections: Sections, name: str) -> None:
        self.sections = sections
        self.name = name
        self._ranges: list[record_function] = []

    def __enter__(self) -> None:
        self.sections.enter(self.name)
        if self.sections.recorded:
            self._ranges.append(record_function(f"part: {self.name}").__enter__())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ranges:
            self._ranges.pop().__exit__(kind, error, trace)
        self.sections.leave()


class _Calls:
    """Calls one function before the block, or one after it."""

    def __init__(self, before: Callable[[], None] | None, after: Callable[[], None] | None) -> None:
        self.before = before
        self.after = after

    def __enter__(self) -> None:
        if self.before is not None:
            self.before()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.after is not None:
            self.after()


class SectionProfiler(Profiler):
    """Has the Trainer mark the parts that it carries out itself."""

    def __init__(self, sections: Sections) -> None:
        super().__init__()
        self.sections = sections
        self._contexts: dict[str, Any] = {}

    def profile(self, action_name: str) -> AbstractContextManager[Any]:
        """The block of one action of the Trainer."""
        if not self.sections.running:
            return _NOTHING
        context = self._contexts.get(action_name)
        if context is None:
            context = self._contexts[action_name] = self._context(action_name)
        return context

    def start(self, action_name: str) -> None:
        """An action begins that is no block."""
        part = part_of(action_name)
        if part and self.sections.running:
            self.sections.enter(part)

    def stop(self, action_name: str) -> None:
        """It ends."""
        if part_of(action_name) and self.sections.running:
            self.sections.leave()

    def _context(self, action: str) -> Any:
        if action.endswith(".on_validation_model_eval"):
            return _Calls(None, lambda: self.sections.enter(VALIDATION))
        if action.endswith(".on_validation_model_train"):
            return _Calls(self.sections.leave, None)
        part = part_of(action)
        return self.sections.section(part) if part else _NOTHING


def part_of(action: str) -> str | None:
    """The part of a step whose time an action of the Trainer is; None if it only contains other actions."""
    if action.startswith("[Callback]"):
        return "callbacks"
    owner, _, hook = action.rpartition(".")
    if hook in ("on_train_batch_start", "on_train_batch_end") and not owner.startswith("[LightningModule]"):
        return None
    return HOOKS.get(hook)

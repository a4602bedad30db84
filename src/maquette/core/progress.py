"""What a run tells everyone who watches it: the progress bar, a studio, a fleet."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ProgressEvent:
    """The state of a run at one moment."""

    step: int
    """Optimiser steps (or views, or files) done in this phase."""
    total: int
    """How many there will be; 0 when that is not known."""
    rate: float
    """Steps a second, over the last moments."""
    eta: float | None
    """Seconds that remain; None when that is not known."""
    phase: str
    """What is being done: "train", "validate", "test", "export", ..."""
    preview: Path | None = None
    """The newest picture, when there is one."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Newest values by name."""
    overview: Any = None
    """What is about to be trained, once before the first step: a `maquette.training.overview.Overview`."""

    @property
    def fraction(self) -> float | None:
        """Part that is done, 0..1; None when the total is not known."""
        return min(self.step / self.total, 1.0) if self.total else None


ProgressListener = Callable[[ProgressEvent], None]
"""Called with every event; must return quickly."""

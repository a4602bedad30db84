"""What a run did and left."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class RunResult:
    """The figures of one run and the files it left."""

    trial_dir: Path
    """The run folder."""
    global_step: int
    """Optimiser steps that the weights have seen."""
    last_loss: float
    """The weighted sum of losses, last time it was looked at; NaN where nothing was trained."""
    seconds: dict[str, float]
    """Seconds of each phase."""
    peak_memory_gb: float
    """Highest memory use so far, GiB."""
    files: list[Path] = field(default_factory=list)
    """Results at the top of the run folder."""
    interrupted: bool = False
    """Whether Ctrl-C ended it early."""
    terminated: bool = False
    """Whether SIGTERM ended it early."""
    out_of_time: bool = False
    """Whether the time budget ended it early."""

    @property
    def status(self) -> str:
        """``done``, or why it ended early: ``interrupted``, ``terminated``, ``out of time``."""
        reasons = {
            "terminated": self.terminated, "interrupted": self.interrupted, "out of time": self.out_of_time,
        }  # fmt: skip
        return next((name for name, is_so in reasons.items() if is_so), "done")

    @property
    def total_seconds(self) -> float:
        """Seconds of all phases together."""
        return sum(self.seconds.values())

"""What ``run.json`` tells of a run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from maquette.core.config import ExperimentConfig
from maquette.training.machine import machine, versions
from maquette.training.mode import Mode
from maquette.training.result import RunResult


def run_record(cfg: ExperimentConfig, mode: Mode, result: RunResult, **more: Any) -> dict[str, Any]:
    """What was run, its result, ``more``, and the machine it ran on; plain values only."""
    return {
        "name": cfg.name,
        "mode": mode,
        "status": result.status,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": cfg.seed,
        "global_step": result.global_step,
        "last_loss": result.last_loss if result.last_loss == result.last_loss else None,
        "seconds": result.seconds,
        "peak_memory_gb": result.peak_memory_gb,
        "files": [path.name for path in result.files],
        **more,
        "machine": machine(),
        "versions": versions(),
    }

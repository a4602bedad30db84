"""The instruments of a single run, each asked for by a flag; no part of a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lightning.pytorch import Callback

from maquette.training.profiling.anomaly import AnomalyMode, anomaly_search
from maquette.training.profiling.recorder import SKIPPED, Recorder
from maquette.training.profiling.sync_audit import AUDITED, SyncAudit
from maquette.training.run_folder import RunFolder


@dataclass(frozen=True)
class Tools:
    """What is switched on; the files are in ``profiling/`` of the run folder."""

    profile: bool = False
    """The PyTorch profiler over some steps: ``trace.json`` for a viewer, ``profile.txt`` to read."""

    memory_snapshot: bool = False
    """Memory over some steps: ``memory.html``, and on a GPU ``memory.pickle`` for PyTorch's viewer."""

    detect_anomaly: bool = False
    """Search each backward pass for NaN: ``anomaly.txt``."""

    sync_audit: bool = False
    """Scalars read, and tensors copied, in some steps, by the line that does it: ``sync.txt``."""

    def callbacks(self, folder: RunFolder) -> list[Callback]:
        """Those that work between the steps; they come after all others. The recording begins when the audit
        is over, which would be seen in it.
        """
        target = folder.root / FOLDER
        skipped = SKIPPED + AUDITED + 1 if self.sync_audit else SKIPPED
        recorder = [Recorder(target, self.profile, self.memory_snapshot, skipped)]
        return [
            *([AnomalyMode()] if self.detect_anomaly else []),
            *([SyncAudit(target / "sync.txt")] if self.sync_audit else []),
            *(recorder if self.profile or self.memory_snapshot else []),
        ]

    @contextmanager
    def around(self, folder: RunFolder) -> Iterator[None]:
        """What holds for all of the optimisation."""
        if not self.detect_anomaly:
            yield
            return
        with anomaly_search(folder.root / FOLDER / "anomaly.txt"):
            yield


NO_TOOLS = Tools()

FOLDER = "profiling"
"""Where the files are, in the run folder."""

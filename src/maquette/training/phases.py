"""What a run is doing, and how long each part of it took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from maquette.core.progress import ProgressEvent, ProgressListener


class Phases:
    """Announces phases to the listeners and adds up their seconds, by name."""

    def __init__(self, listeners: Sequence[ProgressListener]) -> None:
        self.listeners = listeners
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, announce: bool = True) -> Iterator[None]:
        """The block is the phase ``name``; without ``announce``, what runs inside tells the listeners."""
        for listener in self.listeners if announce else ():
            listener(ProgressEvent(step=0, total=0, rate=0.0, eta=None, phase=name))
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

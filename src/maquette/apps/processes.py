"""One command as several processes: all are started, and none outlives another that failed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from maquette.apps.errors import INTERRUPTED
from maquette.core.processes import launched_environment

POLL = 0.1
"""Seconds between two looks at the processes."""

GRACE = 5.0
"""Seconds that a process has to end when it is told to."""

SHOW_CURSOR = "\x1b[?25h"

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Process = subprocess.Popen[bytes]


def run_processes(count: int, words: Sequence[str], begun: Callable[[], Path | None]) -> int:
    """Run ``maquette WORDS`` in ``count`` processes; the exit code of the first that failed, else the
    leader's.

    Args:
        count: how many.
        words: what each of them is told.
        begun: finds the folder of the run that they carry out, once it is there.
    """
    port = _free_port()
    processes = [_start(number, count, port, words) for number in range(count)]
    try:
        with _forwarding(processes):
            failed = _wait(processes)
    finally:
        _end(processes)
    if failed is None:
        return processes[0].returncode
    if sys.stderr.isatty():
        sys.stderr.write(SHOW_CURSOR)  # a progress line that was cut off has hidden it
    code = processes[failed].returncode
    if code < 0:
        name = signal.Signals(-code).name
        sys.stderr.write(f"error: Process {failed} of {count} was killed by {name}; the others were ended.\n")
        if (folder := begun()) is not None:
            sys.stderr.write(f"  maquette launch --resume {folder} goes on from the newest checkpoint\n")
        return 1
    return code


def _start(number: int, count: int, port: int, words: Sequence[str]) -> Process:
    threads = str(max(1, (os.cpu_count() or 1) // count))
    environment = {
        "OMP_NUM_THREADS": threads,
        **os.environ,
        **launched_environment(number, count, port),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "maquette.apps.main", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches each of them once, from here
    )


def _wait(processes: Sequence[Process]) -> int | None:
    """Wait for all; the number of the first that fails ends it. One that was interrupted has not failed."""
    while True:
        codes = [one.poll() for one in processes]
        for number, code in enumerate(codes):
            if code not in (None, 0, INTERRUPTED):
                return number
        if None not in codes:
            return None
        time.sleep(POLL)


def _end(processes: Sequence[Process]) -> None:
    for one in processes:
        if one.poll() is None:
            one.terminate()
    deadline = time.monotonic() + GRACE
    for one in processes:
        try:
            one.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.kill()
            one.wait()


@contextmanager
def _forwarding(processes: Sequence[Process]) -> Iterator[None]:
    """Pass signals on to every process."""

    def forward(signum: int, frame: FrameType | None) -> None:
        for one in processes:
            if one.poll() is None:
                one.send_signal(signum)

    heard = [one for one in FORWARDED if signal.getsignal(one) is not signal.SIG_IGN]  # nohup stays in force
    before = {one: signal.signal(one, forward) for one in heard}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port

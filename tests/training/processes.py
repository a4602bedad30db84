"""Several processes of one run, forked from the one that tests: nothing is imported twice."""

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable

import pytest

from maquette.core.errors import MaquetteError
from maquette.core.processes import launched_environment

LOST, FAILED, UNFORESEEN = 11, 12, 13
"""Exit codes of a process that lost another one, that failed with an error of ours, or otherwise."""

LIMIT = 100
"""Seconds after which whatever still runs is killed, and the test fails."""


def in_processes(work: Callable[[], object], count: int = 2) -> list[int]:
    """Call ``work`` in ``count`` processes of one run; their exit codes, negative for a signal."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_enter, args=(number, count, port, work)) for number in range(count)]
    for one in processes:
        one.start()
    for one in processes:
        one.join(LIMIT)
    late = [one for one in processes if one.is_alive()]
    for one in late:
        one.kill()
        one.join()
    if late:
        pytest.fail(f"{len(late)} of {count} processes did not end within {LIMIT} s")
    return [one.exitcode for one in processes]


def _enter(number: int, count: int, port: int, work: Callable[[], object]) -> None:
    os.environ.update(launched_environment(number, count, port))
    signal.alarm(LIMIT)
    try:
        work()
    except MaquetteError as err:
        os.write(2, f"process {number}: {err}\n".encode())
        os._exit(LOST if type(err).__name__ == "ProcessLost" else FAILED)
    except BaseException as err:  # noqa: BLE001 (whatever it is, it becomes an exit code)
        os.write(2, f"process {number}: {type(err).__name__}: {err}\n".encode())
        os._exit(UNFORESEEN)
    os._exit(0)

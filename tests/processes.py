"""Several processes of one run, forked from the one that tests: nothing is imported twice."""

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.core.errors import MaquetteError
from maquette.core.loading import load_checkpoint
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


def state(folder: Path) -> dict[str, Any]:
    """The newest checkpoint of a run."""
    return load_checkpoint(folder / "ckpts" / "last.ckpt")


def assert_same_weights(one: Path, other: Path) -> None:
    """Two runs have come to the same weights in as many steps, as near as another order of sums allows."""
    first, second = state(one), state(other)
    assert first["global_step"] == second["global_step"]
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for name, value in first["state_dict"].items():
        if value.is_floating_point() and value.numel():
            torch.testing.assert_close(second["state_dict"][name], value, rtol=0, atol=1e-5, msg=name)
        elif not name.endswith("_extra_state"):
            assert torch.equal(second["state_dict"][name], value), name


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

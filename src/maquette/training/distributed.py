"""Several processes, one run: how they join, end together, and are announced to Lightning.

Each process is started from outside, by a command of this package or by torchrun.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from maquette.core.collectives import joined
from maquette.core.device import collective_backend, current_device, gpu_count, is_gpu
from maquette.core.errors import ConfigError
from maquette.core.processes import TERMINATED, is_launched, local_world_size, world_size

TIMEOUT = timedelta(hours=12)
"""How long a process waits for another, which may be exporting; one that is gone is noticed at once."""

WATCH = 0.5
"""Seconds between two looks at whether this process is to end."""

STRATEGIES = {
    "auto": None,
    "ddp": None,
    "ddp_find_unused_parameters_false": False,
    "ddp_find_unused_parameters_true": True,
}
"""What a recipe may name, and whether it says that parameters may go unused."""

PEER_WORDS = (
    "Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused",
    "Socket Timeout", "recvValue failed", "sendBytes failed", "remote process exited",
)  # fmt: skip
"""How the libraries say that a peer is gone."""


@contextmanager
def together() -> Iterator[None]:
    """Join the other processes of the run for the block, and leave them again, whatever happens in it.

    Inside, the process ends at once when it is told to (SIGTERM) or whoever started it is gone, also while
    it waits for another one.
    """
    if world_size() == 1 or joined():
        yield
        return
    with _ending_when_told():
        dist.init_process_group(collective_backend(), timeout=TIMEOUT)
        try:
            yield
            dist.barrier()
        finally:
            dist.destroy_process_group()


def is_lost_process(error: BaseException) -> bool:
    """Whether an error only says that another process is gone."""
    if world_size() == 1 or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError) or any(words in str(error) for words in PEER_WORDS)


def processes_wanted(trainer: Mapping[str, Any]) -> int:
    """How many processes a ``trainer:`` block asks for on this machine.

    Raises:
        ConfigError: no such number, or more than there are GPUs.
    """
    given = trainer.get("devices", 1)
    if isinstance(given, str) and given.lstrip("-").isdigit():
        given = int(given)
    there = gpu_count() if is_gpu(current_device()) else 1
    if given in ("auto", -1):
        return max(there, 1)
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        if is_gpu(current_device()) and given > there:
            raise ConfigError(
                "trainer.devices", given, f"at most {there}, the GPUs seen", "--gpu 0,1 shows two"
            )
        return given
    if isinstance(given, list) and len(given) == 1:
        return 1
    raise ConfigError("trainer.devices", given, "a number of processes", "--gpu 2,3 says which GPUs")


def several_processes(settings: Mapping[str, Any], unused: bool, shares: bool) -> dict[str, Any]:
    """The settings of a Trainer that follow from how many processes were started.

    Args:
        settings: the ``trainer:`` block.
        unused: whether some parameters get no gradient in some steps.
        shares: whether the data itself gives every process its part.

    Raises:
        ConfigError: the recipe asks for more processes than were started, or for another strategy.
    """
    strategy = settings.get("strategy", "auto")
    if world_size() == 1:
        _check_alone(settings)
        return {"strategy": "auto"} if strategy in STRATEGIES else {}
    if strategy not in STRATEGIES:
        raise ConfigError("trainer.strategy", strategy, "one of: " + ", ".join(STRATEGIES))
    local, nodes = local_world_size(), world_size() // local_world_size()
    wanted = processes_wanted(settings) if "devices" in settings else 1
    if wanted not in (1, local):
        raise ConfigError("trainer.devices", wanted, f"{local}, as many as were started on this machine")
    said = STRATEGIES[strategy]
    return {
        "devices": local,
        "num_nodes": nodes,
        "use_distributed_sampler": not shares,
        # Buffers follow from the same draws and the same weights in every process: nothing has to be sent.
        "strategy": DDPStrategy(
            cluster_environment=TorchElasticEnvironment(),
            find_unused_parameters=unused if said is None else said,
            broadcast_buffers=False,
            timeout=TIMEOUT,
        ),
    }


def _check_alone(settings: Mapping[str, Any]) -> None:
    wanted = processes_wanted(settings) * int(settings.get("num_nodes", 1))
    if wanted > 1:
        raise ConfigError(
            "trainer.devices",
            settings.get("devices", 1),
            "1 in a program that runs alone" if not is_launched() else "1, as many as were started",
            f"maquette launch starts the others; a program of yours: torchrun --nproc-per-node {wanted}",
        )


@contextmanager
def _ending_when_told() -> Iterator[None]:
    """End this process on SIGTERM, or when its parent is gone, whatever its main thread waits for.

    Python runs signal handlers in the main thread, between two of its own instructions. A main thread that
    waits for a lost process inside a library never gets there. So the signal is blocked, and another thread
    looks for it.
    """
    done = threading.Event()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    watch = threading.Thread(target=_watch, args=(done, os.getppid()), daemon=True, name="maquette-watch")
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch(done: threading.Event, parent: int) -> None:
    while not done.wait(WATCH):
        if signal.SIGTERM in signal.sigpending() or os.getppid() != parent:
            os._exit(TERMINATED)

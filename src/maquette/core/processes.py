"""Which process of a run this one is, as torchrun says it in the environment."""

import os
import signal

from maquette.core.errors import ConfigError

SIGN = "TORCHELASTIC_RUN_ID"
"""The variable that says that the others are meant: clusters set some of them for other reasons."""


TERMINATED = 128 + signal.SIGTERM
"""The exit code of a program that SIGTERM ended."""


def is_launched() -> bool:
    """Whether somebody started this process as one of several, be they one."""
    return SIGN in os.environ and "RANK" in os.environ and "WORLD_SIZE" in os.environ


def world_size() -> int:
    """How many processes carry out the run."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def local_world_size() -> int:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size())) if is_launched() else 1


def rank() -> int:
    """The number of this one; 0 leads: it alone writes and speaks."""
    return int(os.environ["RANK"]) if is_launched() else 0


def is_leader() -> bool:
    """Whether this process writes and speaks."""
    return rank() == 0


def check_alone(reason: str) -> None:
    """Refuse to share the run with other processes.

    Raises:
        ConfigError: there are others; ``reason`` says why one process is needed.
    """
    if world_size() > 1:
        raise ConfigError("trainer.devices", world_size(), f"1: {reason}")


def launched_environment(number: int, count: int, port: int) -> dict[str, str]:
    """The variables of process ``number`` of ``count`` on one machine, as torchrun sets them."""
    return {
        SIGN: f"maquette-{os.getpid()}",
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }

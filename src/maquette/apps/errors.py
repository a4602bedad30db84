"""The one place where an error becomes text and an exit code."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from maquette.core.errors import MaquetteError, ProcessLost, UserError
from maquette.core.paths import cache_dir
from maquette.core.processes import is_leader, rank, world_size

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

PATIENCE = 3.0
"""Seconds in which a process that failed for the same reason as the leader is ended."""


def report(command: Callable[[], int], verbose: Callable[[], bool] = lambda: False) -> int:
    """Run ``command``; what it raises becomes one screen on stderr and an exit code.

    Expected errors are shown without a traceback, unless ``verbose()``; that of the others is kept in a file.
    """
    try:
        return command()
    except MaquetteError as err:
        _await_turn(err)
        _say(f"error{_place()}: {err}")
        if verbose():
            _say("".join(traceback.format_exception(err)))
        return err.exit_code
    except KeyboardInterrupt:
        if is_leader():
            _say("Interrupted.")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has gone: nobody is left to tell
        return 1
    except Exception as err:  # noqa: BLE001 (the outermost place: nothing is hidden, all is told)
        _await_turn(err)
        _say(_unforeseen(err, verbose()))
        return 1


def _await_turn(err: Exception) -> None:
    """Of several processes of a run, the one that has something to say speaks.

    Whoever started them ends the others when the first one has failed. So the leader says its own errors at
    once, another process those that the leader does not share, and that a process is lost is said last.
    """
    if isinstance(err, ProcessLost):
        time.sleep(3.0 * PATIENCE)
    elif not is_leader():
        time.sleep(PATIENCE)


def _place() -> str:
    return "" if is_leader() else f" in process {rank()} of {world_size()}"


def _unforeseen(err: Exception, verbose: bool) -> str:
    text = "".join(traceback.format_exception(err))
    first = (str(err).strip() or "no message").splitlines()[0]
    lines = [f"error{_place()}: Something unforeseen happened: {type(err).__name__}: {first}"]
    log = _keep(text)
    if log is not None:
        lines.append(f"  The traceback is in {log}")
    return "\n".join([*lines, text]) if verbose else "\n".join(lines)


def _keep(text: str) -> Path | None:
    try:
        path = cache_dir("logs") / f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
        path.write_text(text, encoding="utf-8")
    except (OSError, UserError):  # no place to keep it: the first line has been said
        return None
    return path


def _say(text: str) -> None:
    sys.stderr.write(text.rstrip() + "\n")

"""Failures that have a known cause are given its name; the others leave their traceback in a file."""

from __future__ import annotations

import errno
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from maquette.core.errors import MaquetteError, ProcessLost, RunFailed, UserError
from maquette.core.paths import cache_dir
from maquette.training.distributed import is_lost_process
from maquette.training.run_folder import RunFolder

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_DISK_WORDS = ("No space left on device", "PytorchStreamWriter failed writing", "] . unexpected pos")
"""What libraries say that do not pass the system's error on."""

SMALLEST_FILE = 4096
"""Bytes that have to be free for anything to be written."""


@contextmanager
def named_failures(folder: RunFolder) -> Iterator[None]:
    """Turn what is raised inside the block into a MaquetteError.

    Raises:
        RunFailed: out of memory, full disk, or anything unforeseen, whose traceback is in ``error.log``.
        MaquetteError: as it was raised inside.
    """
    try:
        yield
    except MaquetteError:
        raise
    except Exception as err:
        raise _named(err, folder) from err


def _named(err: Exception, folder: RunFolder) -> RunFailed:
    if any(map(is_lost_process, _chain(err))):
        return ProcessLost()
    if _is_out_of_memory(err):
        return RunFailed(
            "Out of memory.",
            [str(err).splitlines()[0] if str(err) else type(err).__name__],
            "use smaller data.width and data.height, data.batch_size=1, fewer renderer.num_samples_per_ray",
        )
    if any(map(_is_full_disk, _chain(err))) or _no_room(folder):
        return RunFailed(
            "The disk is full.", [f"folder: {folder.root}"], "free some space, then resume the run"
        )
    lines = (str(err).strip() or "no message").splitlines()
    details = [f"{type(err).__name__}: {lines[0]}", *_kept_traceback(err, folder)]
    return RunFailed("The run failed unexpectedly.", details)


def _kept_traceback(err: Exception, folder: RunFolder) -> list[str]:
    try:
        path = folder.log_file if folder.root.is_dir() else cache_dir("logs") / "error.log"
        path.write_text("".join(traceback.format_exception(err)), encoding="utf-8")
    except (OSError, UserError):  # no place to keep it: the first line is said all the same
        return []
    return [f"traceback: {path}"]


def _chain(err: BaseException | None) -> Iterator[BaseException]:
    """The error, what it came from, and so on."""
    while err is not None:
        yield err
        err = err.__cause__ or err.__context__


def _is_full_disk(err: BaseException) -> bool:
    if isinstance(err, OSError) and err.errno in FULL_DISK:
        return True
    return any(words in str(err) for words in FULL_DISK_WORDS)


def _no_room(folder: RunFolder) -> bool:
    """Whether nothing can be written: the programs that encode videos only say that a pipe has broken."""
    root = folder.root.absolute()
    nearest = next(path for path in (root, *root.parents) if path.exists())
    return shutil.disk_usage(nearest).free < SMALLEST_FILE


def _is_out_of_memory(err: Exception) -> bool:
    return isinstance(err, MemoryError | torch.OutOfMemoryError) or (
        isinstance(err, RuntimeError) and "can't allocate memory" in str(err)
    )

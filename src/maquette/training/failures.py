"""Failures that have a known cause are given its name; the others leave their traceback in a file."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from maquette.core.errors import MaquetteError, RunFailed
from maquette.core.paths import cache_dir
from maquette.training.run_folder import RunFolder

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
    if _is_out_of_memory(err):
        return RunFailed(
            "Out of memory.",
            [str(err).splitlines()[0] if str(err) else type(err).__name__],
            "use smaller data.width and data.height, data.batch_size=1, fewer renderer.num_samples_per_ray",
        )
    if isinstance(err, OSError) and err.errno in FULL_DISK:
        return RunFailed(
            "The disk is full.", [f"folder: {folder.root}"], "free some space, then resume the run"
        )
    lines = (str(err).strip() or "no message").splitlines()
    details = [f"{type(err).__name__}: {lines[0]}", *_kept_traceback(err, folder)]
    return RunFailed("The run failed unexpectedly.", details)


def _kept_traceback(err: Exception, folder: RunFolder) -> list[str]:
    path = folder.log_file if folder.root.is_dir() else cache_dir("logs") / "error.log"
    try:
        path.write_text("".join(traceback.format_exception(err)), encoding="utf-8")
    except OSError:
        return []
    return [f"traceback: {path}"]


def _is_out_of_memory(err: Exception) -> bool:
    return isinstance(err, MemoryError | torch.OutOfMemoryError) or (
        isinstance(err, RuntimeError) and "can't allocate memory" in str(err)
    )

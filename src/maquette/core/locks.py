"""Folders that one program at a time works in."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maquette.core.errors import UserError
from maquette.core.paths import cache_dir

try:
    import fcntl
except ImportError:  # Windows has none: there the user has to see to it
    fcntl = None  # type: ignore[assignment]


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Keep the other programs of this machine out of a folder while the block lasts.

    The lock is a file in the cache, since the folder need not exist yet. It belongs to this process, not to
    those it forks, and the system opens it when the process ends, however that happens.

    Raises:
        UserError: another program is at work there.
    """
    if fcntl is None:
        yield
        return
    name = hashlib.sha256(os.fsencode(folder.expanduser().resolve())).hexdigest()[:32]
    with open(cache_dir("locks") / name, "a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            file.seek(0)
            raise UserError(
                f"A run is going on in this folder: {folder}",
                [f"its process: {file.read().strip() or 'unknown'}"],
                "wait for it, end it with Ctrl-C, or choose another folder",
            ) from err
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield

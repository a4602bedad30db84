"""Writes that are whole, checked, or absent, and whose failures a user can understand."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maquette.core.errors import RunFailed, UserError
from maquette.core.paths import atomic_path, unfinished_name

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_FOLDER = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends well; check the file inside the block.

    Raises:
        RunFailed: the disk is full; nothing is left behind.
        UserError: the place cannot be written to.
    """
    with _explained(Path(path)), atomic_path(path) as temporary:
        yield temporary


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` for files that belong together (a mesh, its material, its textures).

    When the block ends well they move next to `path`, the one called `path.name` last: a reader that sees it
    also sees what it refers to. When the block raises, all of them are removed.

    Raises:
        RunFailed: the disk is full; nothing is left behind.
        UserError: the place cannot be written to.
    """
    path = Path(path)
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{unfinished_name(path)}-", dir=path.parent) as folder:
            yield Path(folder)
            files = sorted(Path(folder).iterdir(), key=lambda file: (file.name == path.name, file.name))
            for file in files:
                with atomic_path(path.parent / file.name) as target:
                    file.replace(target)


def mismatch(path: Path, what: str, written: object, found: object) -> RunFailed:
    """The error for a file that does not read back as it was written."""
    return RunFailed(
        f"{path.name} did not read back as it was written, so it was not saved.",
        [f"{what} written: {written}", f"{what} read back: {found}"],
        hint="this is a defect of the writer or of the disk; try again, and report it if it stays",
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        if err.errno in _FULL:
            raise RunFailed(
                f"The disk is full: {path} was not written.",
                [f"folder: {path.parent}"],
                hint="free some space, then export again from the run folder",
            ) from err
        if err.errno in _FORBIDDEN | _NO_FOLDER:
            raise UserError(
                f"Cannot write {path}: {err.strerror}.", hint="choose a folder that you may write to"
            ) from err
        raise

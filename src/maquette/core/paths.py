"""Where things live, names that are safe for a folder, and writes that are whole or absent."""

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maquette.core.errors import UserError

EMBEDDED_PRIOR = "maquette/toyworld"
"""Name of the diffusion pipeline that comes inside the package."""

RANDOM_TINY = "maquette/random-tiny"
"""Name of the small pipeline with random weights that the smoke preset uses."""

CACHE_VARIABLE = "MAQUETTE_CACHE"
"""Environment variable that moves the cache folder."""

UNFINISHED = ".part-"
"""How the names of files begin that are still being written."""

_LEFTOVER = re.compile(re.escape(UNFINISHED) + r"[0-9a-f]{12}-")
_PACKAGE = Path(__file__).resolve().parent.parent


def cache_dir(*parts: str) -> Path:
    """A folder of the cache (`MAQUETTE_CACHE`, or `~/.cache/maquette`); made if it is missing.

    Raises:
        UserError: it cannot be made.
    """
    root = os.environ.get(CACHE_VARIABLE)
    base = Path(root).expanduser() if root else Path.home() / ".cache" / "maquette"
    folder = base.joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        hint = f"set {CACHE_VARIABLE} to a folder that you may write to"
        raise UserError(f"The cache folder cannot be made: {folder}", [str(err)], hint) from err
    return folder


def assets_dir(*parts: str) -> Path:
    """A path inside the package's assets; it may not exist."""
    return _PACKAGE.joinpath("assets", *parts)


def configs_dir(*parts: str) -> Path:
    """A path inside the package's recipes; it may not exist."""
    return _PACKAGE.joinpath("configs", *parts)


def safe_name(text: str, limit: int = 80) -> str:
    """`text` as the name of one folder: no separators, no blanks, never "." or "..", at most `limit` bytes
    in UTF-8, which is how file systems count.

    A text that had to be cut ends in a short digest of the whole, so that two long texts stay apart.
    """
    name = re.sub(r"[^\w@+=,.\-]+", "_", text)
    name = re.sub(r"_{2,}", "_", name).strip("_.") or "unnamed"
    stored = name.encode()
    if len(stored) <= limit:
        return name
    digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=4).hexdigest()
    return f"{stored[: limit - len(digest) - 1].decode(errors='ignore')}-{digest}"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, with the same suffix, that becomes `path` when the block ends well.

    The folder is made if it is missing. The content is on the disk before the name is, and the name before
    this returns, so that a program or a machine that stops at any moment leaves the old file or the new one.
    When the block raises, the temporary file is removed and `path` is untouched; a killed program leaves it
    for `remove_leftovers`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(unfinished_name(path) + path.suffix)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def unfinished_name(path: Path) -> str:
    """A name, without suffix and unlike every other, for what is to become `path`."""
    return f"{UNFINISHED}{uuid.uuid4().hex[:12]}-{path.stem[:40]}"


def is_unfinished(path: Path) -> bool:
    """Whether a file or folder is what `atomic_path` or `whole_folder` of a killed program left."""
    return _LEFTOVER.match(path.name) is not None


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove what killed programs left below `folder`; nobody else may be writing there. What was removed."""
    found = [path for path in sorted(folder.rglob(f"{UNFINISHED}*")) if is_unfinished(path)]
    for path in found:
        remove(path)
    return found


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Make sure that the content is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make sure that the names in a folder are on the disk, where the system can be asked to."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse
            os.fsync(descriptor)
    finally:
        os.close(descriptor)

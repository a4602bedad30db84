"""Where things live, names that are safe for a folder, and writes that are whole or absent."""

import hashlib
import os
import re
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

    The folder is made if it is missing. When the block raises, the temporary file is removed and `path` is
    untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:40]}-{uuid.uuid4().hex[:12]}{path.suffix}")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _flush(path: Path) -> None:
    """Make sure that the content is on the disk before the name is."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())

"""The source that runs, kept with its results."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import maquette

SUFFIXES = (".py", ".yaml", ".toml")
SECONDS = 20
"""Time that git is given."""


def write_code(target: Path, extensions: Iterable[str | Path] = ()) -> None:
    """Copy the package's source and the extensions into a folder; with the commit, and what differs from it,
    where a checkout is run.
    """
    package = Path(maquette.__file__).parent
    for source in (package, *map(Path, extensions)):
        _copy_source(source, target / source.name)
        write_git_state(source, target)


def write_git_state(source: Path, target: Path) -> None:
    """``NAME.commit`` and ``NAME.diff``, where the source belongs to a git repository that knows it."""
    folder = source if source.is_dir() else source.parent
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or not _git(folder, "ls-files", "--", source.name if source.is_file() else "."):
        return
    (target / f"{source.stem}.commit").write_text(commit, encoding="utf-8")
    difference = _git(folder, "diff", "HEAD", "--", ".")
    if difference:
        (target / f"{source.stem}.diff").write_text(difference, encoding="utf-8")


def _git(folder: Path, *words: str) -> str | None:
    """What git answers; None where there is no git, or nothing for it to do."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout


def _copy_source(source: Path, target: Path) -> None:
    files = [source] if source.is_file() else [one for one in source.rglob("*") if one.suffix in SUFFIXES]
    for path in files:
        into = target if path == source else target / path.relative_to(source)
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, into)

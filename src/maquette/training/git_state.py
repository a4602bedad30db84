"""Which commit of a repository runs, and what differs from it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from maquette.core.paths import atomic_path

SECONDS = 20
"""Time that git is given."""


def write_git_state(source: Path, target: Path) -> None:
    """Write ``NAME.commit`` and, where the source was changed since, ``NAME.diff`` into ``target``.

    Does nothing where there is no git, or no repository that has the source.
    """
    folder, name = (source, ".") if source.is_dir() else (source.parent, source.name)
    commit = _git(folder, "rev-parse", "HEAD") if _git(folder, "ls-files", "--", name) else None
    if not commit:
        return
    changes = _git(folder, "diff", "--no-ext-diff", "--no-color", "HEAD", "--", name)
    for suffix, text in (("commit", commit), ("diff", changes)):
        path = target / f"{source.stem}.{suffix}"
        if text:
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        else:
            path.unlink(missing_ok=True)  # of the run before


def _git(folder: Path, *words: str) -> str | None:
    """What git answers; None where it cannot."""
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout

"""The commit that runs, and what differs from it."""

import subprocess
from pathlib import Path

import pytest

from maquette.training.git_state import write_git_state


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    command = ["git", "-C", str(folder), *who, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "repository" / "mine"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text("a = 1\n")
    git(folder, "init", "-q")
    git(folder, "add", "model.py")
    git(folder, "commit", "-q", "-m", "begin")
    return folder


def test_commit_and_difference_are_kept(source: Path, tmp_path: Path) -> None:
    code = tmp_path / "code"
    write_git_state(source, code)
    assert (code / "mine.commit").read_text() == git(source, "rev-parse", "HEAD")
    assert not (code / "mine.diff").exists()
    (source / "model.py").write_text("a = 2\n")
    write_git_state(source, code)
    write_git_state(source / "model.py", code)
    for name in ("mine.diff", "model.diff"):
        assert "-a = 1\n+a = 2\n" in (code / name).read_text()


def test_difference_is_plain_and_goes_with_the_changes(source: Path, tmp_path: Path) -> None:
    code = tmp_path / "code"
    git(source, "config", "color.ui", "always")
    git(source, "config", "diff.external", "echo other")
    (source / "model.py").write_text("a = 2\n")
    write_git_state(source, code)
    assert "\n-a = 1\n+a = 2\n" in (code / "mine.diff").read_text()
    (source / "model.py").write_text("a = 1\n")
    write_git_state(source, code)
    assert not (code / "mine.diff").exists() and (code / "mine.commit").exists()


def test_source_that_no_repository_has_leaves_nothing(source: Path, tmp_path: Path) -> None:
    (tmp_path / "loose.py").write_text("b = 1\n")
    (source / "unknown.py").write_text("b = 1\n")
    for path in (tmp_path / "loose.py", source / "unknown.py"):
        write_git_state(path, tmp_path / "code")
    assert not (tmp_path / "code").exists()

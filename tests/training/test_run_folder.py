import os
from pathlib import Path

import pytest

from maquette.core.errors import UserError
from maquette.training.run_folder import RunFolder


def test_folder_without_permission_is_found_out_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append(Path(path)))
    with pytest.raises(UserError, match=f"not writable.*[\\s\\S]*permission to write in {tmp_path}"):
        RunFolder(tmp_path / "a" / "b").check_usable(reuse=False)
    assert asked == [tmp_path] and list(tmp_path.iterdir()) == []


def test_a_system_that_refuses_is_the_users_to_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mkdir(self: Path, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(UserError, match=r"cannot be made[\s\S]*Read-only"):
        RunFolder(tmp_path / "run").create()


def test_recipe_is_kept_as_given_and_as_run(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("a: ${b}\nb: 1\n")
    folder = RunFolder(tmp_path / "run")
    folder.write_configs("a: 1\nb: 1\n", tmp_path / "mine.yaml")
    folder.write_configs("a: 2\nb: 1\n", None)
    assert (folder.configs / "raw.yaml").read_text() == "a: ${b}\nb: 1\n"
    assert (
        (folder.configs / "parsed.yaml").read_text()
        == (folder.root / "config.yaml").read_text()
        == "a: 2\nb: 1\n"
    )


def test_overwriting_never_clears_a_folder_that_holds_no_run(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "precious.py").write_text("keep")
    with pytest.raises(UserError, match="holds no run"):
        RunFolder(tmp_path).clear()
    assert (tmp_path / "code" / "precious.py").exists()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "parsed.yaml").write_text("")
    RunFolder(tmp_path).clear()
    assert not (tmp_path / "code").exists()

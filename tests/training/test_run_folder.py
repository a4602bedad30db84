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


def test_a_folder_that_holds_no_run_is_never_replaced(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "code" / "mine").mkdir(parents=True)
    (tmp_path / "code" / "precious.py").write_text("keep")
    with pytest.raises(UserError, match="holds no run"):
        folder.check_replaceable()
    folder.write_configs("a: 1\n", None)
    folder.check_replaceable()
    folder.clear()
    assert list(tmp_path.iterdir()) == []


def test_what_a_run_had_come_to_goes_and_its_recipe_stays(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_configs("a: 1\n", None)
    folder.write_command()
    for name in ("save/it1.png", "csv_logs/version_0/metrics.csv", "mine/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")
    folder.clear(keep_recipe=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cmd.txt", "config.yaml", "configs", "mine"]
    assert folder.recipe.read_text() == "a: 1\n"


def test_a_folder_is_unused_until_the_recipe_is_there(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "raw.yaml").write_text("a: 1\n")
    (tmp_path / "configs" / ".part-0123456789ab-parsed.yaml").write_text("a: ")
    folder.check_usable(reuse=False)
    (tmp_path / "configs" / "parsed.yaml").write_text("a: 1\n")
    with pytest.raises(UserError, match="not empty"):
        folder.check_usable(reuse=False)


@pytest.mark.parametrize("name", ["run.json", "run-export.json", "configs/parsed.yaml"])
def test_signs_of_a_run(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.is_run
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    assert folder.is_run


def test_code_is_replaced_as_a_whole(tmp_path: Path) -> None:
    extension = tmp_path / "mine.py"
    extension.write_text("a = 1\n")
    folder = RunFolder(tmp_path / "run")
    (folder.code / "maquette" / "gone").mkdir(parents=True)
    (folder.code / "maquette" / "gone" / "old.py").write_text("")
    for text in ("a = 2\n", "a = 3\n"):
        extension.write_text(text)
        folder.write_code([extension])
        assert (folder.code / "mine.py").read_text() == text
    assert not (folder.code / "maquette" / "gone").exists()
    assert (folder.code / "maquette" / "core" / "paths.py").is_file()
    assert not list(folder.code.glob(".part-*"))

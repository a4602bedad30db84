"""Products that are folders stand at the top of a run whole or not at all."""

import shutil
from pathlib import Path

import pytest

from maquette.core.paths import remove_leftovers
from maquette.systems.prior_vae import move_to_top
from maquette.training.run_folder import RunFolder


def fill(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "a.safetensors").write_text(text)
    return folder


def test_a_newer_folder_takes_the_place_of_the_older(tmp_path: Path) -> None:
    for text in ("old", "new"):
        files = move_to_top(fill(tmp_path / "save" / "vae", text), tmp_path)
        assert files == [tmp_path / "vae" / "a.safetensors"] and files[0].read_text() == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["save", "vae"]


@pytest.mark.parametrize("call", ["rename", "rmtree"])
def test_a_folder_is_whole_whenever_the_move_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    class Killed(BaseException):
        pass

    move_to_top(fill(tmp_path / "save" / "vae", "old"), tmp_path)
    source = fill(tmp_path / "save" / "vae", "new")
    rename = Path.rename

    def killed(*args: object, **options: object) -> None:
        if call == "rename" and args[0] == source:
            raise Killed
        if call == "rmtree":
            raise Killed
        return rename(*args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(*((Path, "rename") if call == "rename" else (shutil, "rmtree")), killed)
        move_to_top(source, tmp_path)
    there = [path for path in (source, tmp_path / "vae") if path.exists()]
    assert [(path / "a.safetensors").read_text() for path in there] == ["new"]
    remove_leftovers(tmp_path)
    assert not list(tmp_path.glob(".part-*"))


@pytest.mark.parametrize("name", ["vae", "prior", "caption-model"])
def test_overwriting_removes_what_the_recipes_leave(tmp_path: Path, name: str) -> None:
    fill(tmp_path / name, "old")
    (tmp_path / "classifier.safetensors").write_text("old")
    (tmp_path / "run.json").write_text("{}")
    RunFolder(tmp_path).clear()
    assert list(tmp_path.iterdir()) == []

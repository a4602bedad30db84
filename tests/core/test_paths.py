"""Folders, names that are safe, and writes that are whole or absent."""

import pytest

from maquette.core.errors import UserError
from maquette.core.paths import (
    assets_dir,
    atomic_path,
    cache_dir,
    configs_dir,
    is_unfinished,
    remove_leftovers,
    safe_name,
)


def test_atomic_path_replaces_only_when_all_is_written(tmp_path):
    target = tmp_path / "deep" / "picture.png"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == target.parent
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert [path.name for path in target.parent.iterdir()] == ["picture.png"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_atomic_path_leaves_nothing_of_a_failure(tmp_path, error):
    target = tmp_path / "mesh.glb"
    target.write_bytes(b"old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["mesh.glb"]


def test_atomic_path_notices_that_nothing_was_written(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a_red_mushroom", "a_red_mushroom"),
        ("a red mushroom", "a_red_mushroom"),
        ("../../etc/passwd", "etc_passwd"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("[64, 128]_x.png", "64,_128_x.png"),
        ("c:\\temp\0", "c_temp"),
        ("ein grüner Baum", "ein_grüner_Baum"),
    ],
)
def test_safe_name(text, name):
    assert safe_name(text) == name


def test_long_names_are_cut_and_stay_apart(tmp_path):
    long = "word " * 500
    first, second = safe_name(long + "a"), safe_name(long + "b")
    assert len(first) == len(second) == 80
    assert first != second
    (tmp_path / first).mkdir()


def test_length_is_counted_as_file_systems_count(tmp_path):
    name = safe_name("赤いきのこ" * 100)
    assert len(name.encode()) <= 80 and name.startswith("赤いきのこ")
    (tmp_path / f"{name}@20260101-000000").mkdir()


def test_a_cache_that_cannot_be_made_names_its_variable(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("a file")
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set MAQUETTE_CACHE"):
        cache_dir("kernels")


def test_the_cache_moves_with_its_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path / "here"))
    assert cache_dir("kernels") == tmp_path / "here" / "kernels"
    assert cache_dir("kernels").is_dir()


def test_package_folders_stand_beside_each_other():
    assert configs_dir("a.yaml").parent.parent == assets_dir().parent
    assert configs_dir().is_dir()


def test_leftovers_of_killed_programs_are_removed_and_nothing_else(tmp_path):
    (tmp_path / "save").mkdir()
    left = tmp_path / "save" / ".part-0123456789ab-a.png"
    folder = tmp_path / ".part-ba9876543210-code-x"
    left.write_text("half")
    (folder / "inside").mkdir(parents=True)
    for name in (".part-mine", "part-0123456789ab-a.png", "save/a.png"):
        (tmp_path / name).write_text("whole")
    assert is_unfinished(left) and is_unfinished(folder) and not is_unfinished(tmp_path / ".part-mine")
    assert remove_leftovers(tmp_path) == [folder, left]
    found = sorted(path.name for path in tmp_path.rglob("*"))
    assert found == [".part-mine", "a.png", "part-0123456789ab-a.png", "save"]


def test_what_atomic_path_writes_to_is_known_as_unfinished(tmp_path):
    with atomic_path(tmp_path / "a.png") as temporary:
        assert is_unfinished(temporary)
        temporary.write_text("")
    assert remove_leftovers(tmp_path) == [] and (tmp_path / "a.png").exists()

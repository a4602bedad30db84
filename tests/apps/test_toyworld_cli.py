"""The commands about toys, as a user types them."""

import json

from maquette.apps.main import main
from maquette.io.mesh import read_mesh


def test_render(tmp_path, capsys):
    assert main(["toyworld", "render", "--out", str(tmp_path / "album"), "--count", "2", "--size", "16"]) == 0
    lines = (tmp_path / "album" / "captions.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines] == ["000000.png", "000001.png"]
    assert "captions.jsonl" in capsys.readouterr().out


def test_render_refuses_a_folder_in_use(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["toyworld", "render", "--out", str(tmp_path)]) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_mesh(tmp_path):
    path = tmp_path / "car.glb"
    assert main(["toyworld", "mesh", "car", "red", "--out", str(path)]) == 0
    vertices = read_mesh(path).vertices
    assert vertices[:, 0].max() > vertices[:, 1].max()


def test_unknown_toys_get_a_suggestion(tmp_path, capsys):
    assert main(["toyworld", "mesh", "carr", "red", "--out", str(tmp_path / "x.glb")]) == 2
    assert "car" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

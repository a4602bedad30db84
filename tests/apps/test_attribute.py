import pytest
from PIL import Image

from maquette.apps.main import main
from maquette.data.toyworld.mesh import colored_toy
from maquette.io.mesh import read_mesh, write_mesh


@pytest.fixture
def run(tmp_path, monkeypatch):
    """What a finished run leaves at its top, with a true toy as its asset."""
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "run"
    write_mesh(colored_toy("mushroom", "red"), folder / "mesh.glb")
    words = "{prompt: a red mushroom, pretrained_model_name_or_path: maquette/toyworld, directions: toyworld}"
    (folder / "config.yaml").write_text(f"tag: mushroom\nsystem:\n  prompt_processor: {words}\n")
    return folder


def test_a_colored_file_and_a_sheet_of_the_word(run):
    assert main(["attribute", str(run), "--word", "red"]) == 0
    colors = read_mesh(run / "attribution" / "red.glb").vertex_colors
    assert len(colors.unique(dim=0)) > 20
    assert Image.open(run / "attribution" / "red.png").size == (8 * 64, 2 * 64)


def test_mistakes_leave_nothing(run, tmp_path, capsys):
    assert main(["attribute", str(run), "--word", "boat"]) == 2
    assert "'boat'" in capsys.readouterr().err
    assert main(["attribute", str(tmp_path / "absent"), "--word", "red"]) == 2
    assert not (run / "attribution").exists()

from PIL import Image

from maquette.apps.main import main

PROMPTS = ["a red mushroom", "a blue mushroom"]
QUICK = ["--steps", "3"]


def test_a_sheet_with_both_pictures_and_every_word(tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert main(["edit2d", *PROMPTS, *QUICK, "--out", str(out), "--blend", "red", "blue"]) == 0
    assert str(out) in capsys.readouterr().out
    assert Image.open(out).size == (3 * 192, 3 * 192)


def test_mistakes_leave_nothing(tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert main(["edit2d", *PROMPTS, *QUICK, "--out", str(out), "--reweight", "green=2"]) == 2
    assert "'green'" in capsys.readouterr().err
    assert main(["edit2d", *PROMPTS, *QUICK, "--out", str(out), "--reweight", "blue"]) == 2
    assert not out.exists()

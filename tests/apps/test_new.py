"""The package that `maquette new extension` writes works as it is: its own tests pass."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maquette.apps.main import main


def test_the_package_passes_its_own_tests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "extension", "even-steps", "--out", str(tmp_path)]) == 0
    assert "--extension" in capsys.readouterr().out
    folder = tmp_path / "even-steps"
    for line in ['[project.entry-points."maquette.extensions"]', 'even-steps = "even_steps"']:
        assert line in (folder / "pyproject.toml").read_text()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My_Idea", "cannot be the name"),
        ("class", "cannot be the name"),
        ("stable-diffusion", "is taken"),
        ("maquette", "is taken"),
    ],
)
def test_names_that_cannot_be(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "extension", name, "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_what_is_there_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "idea").mkdir()
    assert main(["new", "extension", "idea", "--out", str(tmp_path)]) == 2
    assert "already" in capsys.readouterr().err and not list((tmp_path / "idea").iterdir())

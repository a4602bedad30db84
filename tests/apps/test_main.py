import subprocess
import sys

import pytest

from maquette.apps.main import COMMANDS, main
from maquette.core.registry import registry


def test_help_names_every_command_and_loads_no_torch() -> None:
    code = (
        "import sys, maquette.apps.main as m; code = m.main(['--help']); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in done.stdout and line in done.stdout for name, (_, line) in COMMANDS.items())
    assert 'maquette generate "a red mushroom"' in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["generat"], "did you mean generate"),
        (["generate"], "PROMPT"),
        (["generate", "  "], "prompt is empty"),
        (["generate", "a", "red", "mushroom"], "Unexpected argument 'red'"),
        (["generate", "a toy", "--sed", "3"], "--seed"),
        (["generate", "a toy", "--trainer.max_steps=3"], "settings of the recipe have no dashes"),
        (["generate", "a toy", "--seed", "x"], "invalid int value"),
        (["generate", "a toy", "--steps", "0"], "no whole number above zero"),
        (["generate", "a toy", "--overwrite"], "--overwrite needs --out"),
        (["generate", "a toy", "--recipe", "first-ligt"], "first-light"),
        (["generate", "a toy", "--extension", "nowhere.py"], "extension was not found"),
        (["launch"], "No mode was given"),
        (["launch", "--train"], "No recipe was given"),
        (["launch", "--config", "first-light", "--train", "--test"], "--train and --test"),
        (["launch", "--config", "nowhere.yaml", "--train"], "recipe was not found"),
        (["launch", "--config", "first-light", "--train", "--gradio"], "not available yet"),
        (["launch", "--config", "first-light", "--train"], "system.prompt_processor.prompt"),
        (["launch", "--resume", "nowhere"], "run to resume"),
        (
            ["launch", "--config", "first-light", "--test", "system.prompt_processor.prompt=x"],
            "needs the weights",
        ),
        (["show", "moduls"], "config, modules, option, run"),
        (["show", "modules", "geometry", "seed=3"], "takes no settings"),
        (["show", "config", "first-ligt"], "first-light"),
        (["doctor", "--fast"], "Unknown option --fast"),
    ],
)
def test_mistakes_are_one_screen_and_exit_code_2(
    arguments: list[str],
    text: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert text in error and "Traceback" not in error and len(error.splitlines()) <= 24
    assert list(__import__("pathlib").Path(str(tmp_path)).iterdir()) == []


def test_unforeseen_error_is_told_and_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path))
    monkeypatch.setattr("maquette.apps.doctor.main", lambda args: 1 // 0)
    assert main(["doctor"]) == 1
    error = capsys.readouterr().err
    assert "ZeroDivisionError" in error and "Traceback" not in error
    assert (
        "ZeroDivisionError" in open(error.split("The traceback is in ")[1].strip(), encoding="utf-8").read()
    )


def test_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("maquette.apps.doctor.main", interrupted)
    assert main(["doctor"]) == 130


def test_doctor_names_the_machine_and_the_versions(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert torch.__version__ in out and "kernels" in out and "maquette/toyworld" in out


def test_show_lists_modules_and_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "modules", "geometry"]) == 0
    assert "implicit-volume" in capsys.readouterr().out
    assert main(["show", "modules"]) == 0
    assert set(registry.names()) <= set(capsys.readouterr().out.split())  # whole, to be copied
    assert main(["show", "modules", "implicit-volume"]) == 0
    out = capsys.readouterr().out
    assert "isosurface_resolution: " in out and "density_bias: Any = 'blob_magic3d'" in out


def test_show_config_prints_a_recipe_that_can_be_run(
    capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    from pathlib import Path

    from maquette.core.config import load_config

    assert main(["show", "config"]) == 0
    assert "first-light" in capsys.readouterr().out
    assert main(["show", "config", "first-light", "trainer.max_steps=7"]) == 0
    path = Path(str(tmp_path)) / "recipe.yaml"
    path.write_text(capsys.readouterr().out)
    assert load_config(path).trainer["max_steps"] == 7


def test_show_config_adds_a_prompt_only_where_one_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "config", "first-light", "system.prompt_processor.prompt=a red mug"]) == 0
    assert "prompt: a red mug" in capsys.readouterr().out
    assert main(["show", "config", "prior-vae"]) == 0
    assert "hamburger" not in capsys.readouterr().out

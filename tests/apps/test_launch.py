"""The flags of `launch`, without the runs behind them."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import maquette.training.run as engine
from maquette.apps.main import main
from maquette.training.profiling.tools import NO_TOOLS
from maquette.training.run import RunResult

RECIPE = """
format: maquette/1
tag: mine
data_type: random-camera-datamodule
system_type: dreamfusion-system
"""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What the engine is asked to do; it does nothing."""
    calls: list[dict[str, Any]] = []

    def run(cfg: Any, mode: str, **options: Any) -> RunResult:
        calls.append({"cfg": cfg, "mode": mode, **options})
        return RunResult(tmp_path, 3, 0.5, {"optimising": 1.0}, 0.1, interrupted=cfg.name == "interrupted")

    monkeypatch.setattr(engine, "run", run)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "mine.yaml").write_text(RECIPE)
    return calls


def launch(tmp_path: Path, *words: str) -> int:
    return main(["launch", "--config", str(tmp_path / "mine.yaml"), *words])


@pytest.mark.parametrize("mode", ["train", "validate", "test", "export"])
def test_mode_recipe_and_extras_reach_the_engine(asked: Any, tmp_path: Path, mode: str) -> None:
    words = ["seed=4", f"--{mode}", "trainer.max_steps=7", "--out", str(tmp_path / "out")]
    assert launch(tmp_path, *words) == 0
    (call,) = asked
    assert call["mode"] == mode and call["raw"] == tmp_path / "mine.yaml" and call["resume"] is None
    assert (call["cfg"].seed, call["cfg"].trainer.max_steps) == (4, 7)
    assert call["cfg"].trial_dir == tmp_path / "out"


def test_interrupted_run_is_exit_code_130(
    asked: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(tmp_path, "--train", "name=interrupted") == 130
    assert "Stopped: step 3" in capsys.readouterr().out


def test_verbose_shows_debugging_messages(asked: Any, tmp_path: Path) -> None:
    for words, level in (([], logging.INFO), (["--verbose"], logging.DEBUG)):
        assert launch(tmp_path, "--train", *words) == 0
        assert logging.getLogger("maquette").level == level
    assert [call["verbose"] for call in asked] == [False, True]


def test_verbose_shows_the_traceback_of_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", "--config", "nowhere.yaml", "--train", "--verbose"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_typecheck_is_installed_before_the_rooms_are_imported(
    asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maquette.core.typecheck.install_typecheck", lambda: asked.append("typecheck"))
    assert launch(tmp_path, "--train", "--typecheck") == 0
    assert asked[0] == "typecheck" and asked[1]["mode"] == "train"


@pytest.mark.parametrize("flag", ["profile", "memory-snapshot", "detect-anomaly", "sync-audit"])
def test_instruments_reach_the_engine(asked: Any, tmp_path: Path, flag: str) -> None:
    assert launch(tmp_path, "--train", f"--{flag}") == 0
    (call,) = asked
    assert vars(call["tools"]) == {**vars(NO_TOOLS), flag.replace("-", "_"): True}


def test_gpus_are_chosen_unless_the_environment_has(
    asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert launch(tmp_path, "--train", "--gpu", "1") == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert launch(tmp_path, "--train", "--gpu", "1,2") == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,2"
    assert launch(tmp_path, "--train", "--gpu", "first") == 2
    assert "--gpu takes a number" in capsys.readouterr().err


def test_resume_uses_the_recipe_and_the_folder_of_the_run(asked: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("configs/parsed.yaml", "ckpts/last.ckpt"):
        (run / name).parent.mkdir(parents=True)
        (run / name).write_text(RECIPE)
    for given in (run, run / "ckpts" / "last.ckpt"):
        assert main(["launch", "--resume", str(given), "--export"]) == 0
        call = asked.pop()
        assert call["resume"] == given and call["cfg"].trial_dir == run
        assert call["raw"] is None and call["mode"] == "export"


def test_launch_py_is_maquette_launch(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "launch.py"
    for words, code, text in ((["--help"], 0, "usage: maquette launch"), ([], 2, "No mode was given")):
        done = subprocess.run(
            [sys.executable, str(script), *words], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert done.returncode == code and text in done.stdout + done.stderr


def test_resume_of_a_run_of_several_stages_is_its_folder(asked: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "stages").mkdir(parents=True)
    (run / "configs").mkdir()
    (run / "configs" / "parsed.yaml").write_text(RECIPE)
    assert main(["launch", "--resume", str(run)]) == 0
    call = asked.pop()
    assert call["resume"] == run and call["cfg"].trial_dir == run and call["mode"] == "train"

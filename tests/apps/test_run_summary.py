"""What a run did, in a few lines."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from maquette.apps.main import main
from maquette.apps.run_summary import losses, sparkline


def leave(folder: Path, **record: Any) -> None:
    """What a run leaves."""
    facts = {
        "name": "toy", "status": "done", "global_step": 3, "last_loss": 0.25, "seed": 1,
        "files": ["mesh.glb"], "seconds": {"loading": 1.25, "optimising": 8.0},
        "step_seconds": {"render": 0.03, "guidance": 0.01},
        "machine": {"cores": 2}, "versions": {"torch": "2.13"}, **record,
    }  # fmt: skip
    logs = folder / "csv_logs" / "version_0"
    logs.mkdir(parents=True)
    (logs / "metrics.csv").write_text("step,train/loss,lr\n0,4.0,\n0,,0.1\n1,2.0,\n2,1.0,\n")
    (folder / "run.json").write_text(json.dumps(facts))
    (folder / "config.yaml").write_text("name: toy\n")
    (folder / "cmd.txt").write_text("maquette generate 'a toy'\n")
    (folder / "mesh.glb").write_bytes(bytes(20_000))


def test_the_summary_has_losses_times_files_and_versions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(tmp_path)
    assert main(["show", "run", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for shown in (
        "status", "done", "█▃▁  4 to 1", "optimising", "8.0", "render", "30.00 ms  75.0%", "mesh.glb",
        "0.02 MB", "maquette generate 'a toy'", "torch", "2.13",
    ):  # fmt: skip
        assert shown in text


def test_runs_that_did_not_end_are_shown_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(tmp_path)
    (tmp_path / "run.json").unlink()
    assert main(["show", "run", str(tmp_path)]) == 0
    assert "not finished" in capsys.readouterr().out
    (tmp_path / "error.log").write_text("Traceback")
    main(["show", "run", str(tmp_path)])
    assert "broken, see error.log" in capsys.readouterr().out


def test_stages_have_their_own_losses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(tmp_path)
    leave(tmp_path / "stages" / "00-coarse")
    main(["show", "run", str(tmp_path)])
    assert "losses of stage 00-coarse" in capsys.readouterr().out
    assert losses(tmp_path / "stages" / "00-coarse") == {"loss": "█▃▁  4 to 1"}


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "run", str(tmp_path)]) == 2
    assert "give the folder of a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "line"),
    [([], ""), ([1.0], "▁"), ([1, 2, 3], "▁▅█"), ([1.0, math.nan, 2.0], "▁x█"), ([math.inf], "x")],
)
def test_sparklines(values: list[float], line: str) -> None:
    assert sparkline(values) == line


def test_a_long_curve_is_as_wide_as_asked() -> None:
    assert sparkline(range(1000), width=8) == "▁▂▃▄▅▆▇█"

"""When a run touches its folder, and what it leaves there of a run that was in it before."""

import sys
from pathlib import Path
from typing import Any

import pytest

from maquette.core.errors import UserError
from maquette.training.run import run

QUICK = "training.finish=[]"
STAGES = "stages=[{name: coarse},{name: fine, trainer: {max_steps: 6}}]"
MISTAKES = [
    "trainer.max_stepz=2",
    "trainer.max_steps=-5",
    "checkpoint.save_topk=1",
    "system.optimizer.name=Adm",
    "system.optimizer.params.iner.lr=0.1",
    "system.scheduler={name: StepLR, interval: step, args: {step: 1}}",
    "training.loggers=[csv,wandb]",
    "training.freeze=[iner]",
]


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def _no_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)


@pytest.mark.parametrize("stages", [False, True], ids=["run", "stages"])
def test_a_mistake_costs_nothing_of_the_run_that_is_there(toy: Any, tmp_path: Path, stages: bool) -> None:
    words = [QUICK, *([STAGES] if stages else [])]
    run(toy(*words), "train")
    before = files(tmp_path / "run")
    for mistake in MISTAKES:
        with pytest.raises(UserError):
            run(toy(*words, mistake), "train", overwrite=True)
        assert files(tmp_path / "run") == before, mistake


@pytest.mark.parametrize("stages", [False, True], ids=["run", "stages"])
def test_a_mistake_made_when_resuming_is_not_written_down(toy: Any, tmp_path: Path, stages: bool) -> None:
    words = [QUICK, *([STAGES] if stages else [])]
    run(toy(*words), "train")
    where = "stages.fine." if stages else ""
    before = files(tmp_path / "run")
    for mistake in MISTAKES:
        with pytest.raises(UserError):
            run(
                toy(*words, f"{where}trainer.max_steps=8", f"{where}{mistake}"),
                "train",
                resume=tmp_path / "run",
            )
        assert files(tmp_path / "run") == before, mistake
    more = toy(*words, f"{where}trainer.max_steps=8")
    assert run(more, "train", resume=tmp_path / "run").global_step == 8

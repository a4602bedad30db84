"""When a run touches its folder, and what it leaves there of a run that was in it before."""

import sys
from pathlib import Path
from typing import Any

import pytest

from maquette.apps.run_summary import status
from maquette.core.errors import RunFailed, UserError
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


def test_a_branch_that_replaces_a_run_has_none_of_its_checkpoints(toy: Any, tmp_path: Path) -> None:
    first, other = tmp_path / "run", tmp_path / "other"
    run(toy(QUICK), "train")
    every = "checkpoint={every_n_train_steps: 9, filename: '{step}'}"
    run(toy(QUICK, every, "trainer.max_steps=9", f"run_dir={other}"), "train")
    branch = toy(QUICK, "trainer.max_steps=6", f"run_dir={other}")
    assert run(branch, "train", resume=first, overwrite=True).global_step == 6
    assert [path.name for path in (other / "ckpts").iterdir()] == ["last.ckpt"]
    assert (first / "ckpts" / "last.ckpt").exists()


def test_a_run_that_goes_on_has_not_ended(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, original = tmp_path / "run", toy.system.training_step
    run(toy(QUICK), "train")

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        assert not (folder / "run.json").exists() and not (folder / "error.log").exists()
        if self.global_step == 5:
            raise ZeroDivisionError("by accident")
        return original(self, batch, batch_idx)

    more = toy(QUICK, "trainer.max_steps=6")
    with monkeypatch.context() as patch:
        patch.setattr(toy.system, "training_step", training_step)
        with pytest.raises(RunFailed):
            run(more, "train", resume=folder)
    assert status(folder, {}).startswith("broken") and not (folder / "run.json").exists()
    run(more, "train", resume=folder)
    assert (folder / "run.json").exists() and not (folder / "error.log").exists()

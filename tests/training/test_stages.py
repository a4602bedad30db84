"""Several stages in one run, with the model of two parameters."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.core.errors import MissingFileError, RunFailed, UnknownKeyError, UserError
from maquette.core.loading import load_checkpoint
from maquette.core.progress import ProgressEvent
from maquette.training.run import run

STAGES = (
    "stages=[{name: coarse},{name: fine, trainer: {max_steps: 6}, system: {optimizer: {args: {lr: 0.01}}}}]"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def _following(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second stage takes the weights of the first one."""
    following = classmethod(lambda cls, cfg, checkpoint: {"weights": str(checkpoint)})
    monkeypatch.setattr(toy.system, "following", following)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "ckpts" / "last.ckpt")["state_dict"]


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def test_stages_follow_each_other_and_leave_the_last_ones_products(toy: Any, folder: Path) -> None:
    heard: list[ProgressEvent] = []
    result = run(toy(STAGES), "train", listeners=[heard.append])
    coarse, fine = folder / "stages" / "00-coarse", folder / "stages" / "01-fine"
    assert result.trial_dir == folder and result.global_step == 6
    assert result.files == [folder / "answer.txt"]
    assert (folder / "answer.txt").read_text() == (fine / "answer.txt").read_text()
    assert (folder / "answer.txt").read_text() != (coarse / "answer.txt").read_text()
    for name in ("config.yaml", "configs/parsed.yaml", "cmd.txt", "run.json"):
        assert (folder / name).is_file()
    assert not (fine / "code").exists(), "the source is kept once"
    begun = json.dumps({"weights": str(coarse / "ckpts" / "last.ckpt")})
    assert begun[1:-1].split(": ")[1].strip('"') in (fine / "config.yaml").read_text()
    phases = list(dict.fromkeys(event.phase for event in heard))
    assert phases[0] == "1/2 coarse: loading" and "2/2 fine: optimising" in phases


def test_second_stage_begins_with_the_weights_of_the_first(toy: Any, folder: Path) -> None:
    run(toy(STAGES, "stages.1.system.optimizer.args.lr=0.0"), "train")
    coarse, fine = (weights(folder / "stages" / name) for name in ("00-coarse", "01-fine"))
    assert all(torch.equal(coarse[name], fine[name]) for name in coarse)
    assert not torch.equal(coarse["inner.weight"], torch.ones(2))


def test_record_sums_the_stages_up(toy: Any, folder: Path) -> None:
    result = run(toy(STAGES), "train")
    whole, parts = record(folder), [record(folder / "stages" / name) for name in ("00-coarse", "01-fine")]
    assert whole["status"] == "done" and list(whole["stages"]) == ["coarse", "fine"]
    assert [stage["global_step"] for stage in whole["stages"].values()] == [4, 6]
    assert whole["seconds"] == result.seconds and "coarse: optimising" in whole["seconds"]
    total = sum(sum(part["seconds"].values()) for part in parts)
    assert result.total_seconds == pytest.approx(total)
    assert result.last_loss == parts[1]["last_loss"]


def test_ctrl_c_leaves_the_asset_of_the_stage_and_resume_equals_an_unbroken_run(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = ("training.finish=[]", "stages.1.training.finish=[export]")
    run(toy(STAGES, *quick, f"run_dir={tmp_path / 'whole'}"), "train")
    original = toy.system.training_step
    parts, presses = tmp_path / "parts", [("00-coarse", 1), ("01-fine", 3)]

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        stage = self.get_save_dir().parent.name
        if presses and presses[0] == (stage, self.global_step):
            presses.pop(0)
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(toy.system, "training_step", training_step)
    config = toy(STAGES, *quick, f"run_dir={parts}")
    first = run(config, "train")
    assert first.interrupted and first.global_step == 2 and first.files == [parts / "answer.txt"]
    assert not (parts / "stages" / "01-fine").exists() and list(record(parts)["stages"]) == ["coarse"]
    second = run(config, "train", resume=parts)
    assert second.interrupted and second.global_step == 4
    third = run(config, "train", resume=parts)
    assert not third.interrupted and record(parts)["status"] == "done"
    for stage in ("00-coarse", "01-fine"):
        whole, again = weights(tmp_path / "whole" / "stages" / stage), weights(parts / "stages" / stage)
        assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert (parts / "answer.txt").read_text() == (tmp_path / "whole" / "answer.txt").read_text()


def test_finished_stages_are_not_run_again(toy: Any, folder: Path, calls: list[str]) -> None:
    run(toy(STAGES), "train")
    calls.clear()
    run(toy(STAGES), "train", resume=folder)
    assert not calls
    run(toy(STAGES, "stages.1.trainer.max_steps=7"), "train", resume=folder)
    assert calls.count("training_step") == 1


def test_stage_that_breaks_is_named_and_those_before_it_stay(
    toy: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = toy.system.training_step

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if "fine" in str(self.get_save_dir()):
            raise ValueError("something")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(toy.system, "training_step", training_step)
    with pytest.raises(RunFailed, match="something") as caught:
        run(toy(STAGES), "train")
    assert "in stage 1 (fine)" in str(caught.value)
    assert record(folder / "stages" / "00-coarse")["status"] == "done"


def test_mistake_in_the_last_stage_is_refused_before_the_first_one(
    toy: Any, folder: Path, calls: list[str]
) -> None:
    with pytest.raises(UnknownKeyError, match="losss"):
        run(toy("stages=[{name: coarse},{name: fine, system: {losss: {}}}]"), "train")
    assert not folder.exists() and not calls


def test_export_uses_the_newest_stage_and_needs_one(toy: Any, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="run to resume"):
        run(toy(STAGES), "export", resume=folder)
    run(toy(STAGES, "training.finish=[]"), "train")
    assert not (folder / "answer.txt").exists()
    result = run(toy(STAGES), "export", resume=folder)
    assert result.files == [folder / "answer.txt"] and result.global_step == 6


def test_overwrite_begins_anew(toy: Any, folder: Path, calls: list[str]) -> None:
    run(toy(STAGES), "train")
    calls.clear()
    run(toy(STAGES, "seed=1"), "train", overwrite=True)
    assert calls.count("training_step") == 10 and record(folder)["seed"] == 1


def test_a_checkpoint_of_a_stage_is_what_is_gone_back_to(toy: Any, folder: Path, calls: list[str]) -> None:
    every = "checkpoint={every_n_train_steps: 1, save_top_k: -1, filename: '{step}'}"
    words = (STAGES, every, "training.finish=[]")
    run(toy(*words), "train")
    calls.clear()
    chosen = folder / "stages" / "00-coarse" / "ckpts" / "step=3.ckpt"
    assert run(toy(*words), "export", resume=chosen).global_step == 3
    result = run(toy(*words), "train", resume=chosen)
    assert result.global_step == 6 and calls.count("training_step") == 1 + 6
    with pytest.raises(UserError, match="of no stage"):
        run(toy(*words), "train", resume=folder / "config.yaml")

"""A run that has only so much time ends well."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.core.loading import load_checkpoint
from maquette.training.callbacks import time_budget
from maquette.training.run import run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is a second later whenever it is asked."""
    now = [0.0]

    def monotonic() -> float:
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr(time_budget.time, "monotonic", monotonic)


def test_a_run_out_of_time_exports_and_goes_on_later(toy: Any, tmp_path: Path, clock: None) -> None:
    result = run(toy("training.time_budget=2s", "trainer.max_steps=6"), "train")
    assert result.out_of_time and result.global_step == 3 and result.files and not result.interrupted
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "out of time"
    last = tmp_path / "run" / "ckpts" / "last.ckpt"
    assert load_checkpoint(last)["callbacks"]["TimeBudget"]["spent"] > 2
    result = run(toy("trainer.max_steps=6"), "train", resume=last)
    assert result.status == "done" and result.global_step == 6
    whole = toy("trainer.max_steps=6", f"run_dir={tmp_path / 'whole'}")
    run(whole, "train")
    parts, undisturbed = (
        load_checkpoint(one)["state_dict"] for one in (last, tmp_path / "whole/ckpts/last.ckpt")
    )
    assert all(torch.equal(parts[name], undisturbed[name]) for name in undisturbed)


def test_the_export_comes_even_if_the_recipe_has_none(toy: Any, clock: None) -> None:
    result = run(toy("training.time_budget=1", "training.finish=[]"), "train")
    assert result.out_of_time and [path.name for path in result.files] == ["answer.txt"]


def test_a_stage_out_of_time_is_not_followed_by_the_next(toy: Any, tmp_path: Path, clock: None) -> None:
    stages = "stages=[{name: a, training: {time_budget: 2}},{name: b}]"
    result = run(toy(stages, "trainer.max_steps=6"), "train")
    assert result.status == "out of time" and not (tmp_path / "run" / "stages" / "01-b").exists()

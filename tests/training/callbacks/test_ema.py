from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from maquette.core.loading import load_checkpoint
from maquette.training.callbacks.ema import WeightAverage
from maquette.training.run import run
from maquette.training.weights import averaged_state


def test_average_is_the_warmed_up_recursion() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average, expected = WeightAverage(model, decay=0.5), 0.0
    for n in range(6):
        nn.init.constant_(model.weight, n + 1.0)
        average.update(model)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * (n + 1.0)
    assert average.average["weight"].item() == pytest.approx(expected)


def test_swapping_twice_changes_nothing_and_frozen_weights_are_left_out() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    average = WeightAverage(model, decay=0.9)
    before = model.weight.detach().clone()
    nn.init.ones_(model.weight)
    average.swap(model)
    assert torch.equal(model.weight, before) and "bias" not in average.average
    average.swap(model)
    assert torch.equal(model.weight, torch.ones(2, 2)) and torch.equal(average.average["weight"], before)


def test_average_follows_rows_that_come_and_go() -> None:
    model = nn.Embedding(3, 1)
    average = WeightAverage(model, decay=0.9)
    average.average["weight"] = torch.tensor([[1.0], [2.0], [3.0]])
    weights = torch.tensor([[7.0], [8.0], [9.0], [10.0]])
    source, fresh = torch.tensor([2, 0, 2, 1]), torch.tensor([False, False, True, True])
    average.follow("weight", weights, source, fresh)
    average.follow("frozen", weights, source, fresh)
    assert average.average["weight"][:, 0].tolist() == [3.0, 1.0, 9.0, 10.0] and len(average.average) == 1


def test_weights_that_thaw_join_the_average() -> None:
    model = nn.Linear(1, 1)
    model.bias.requires_grad_(False)
    average = WeightAverage(model, decay=0.5)
    model.bias.requires_grad_(True)
    average.update(model)
    assert torch.equal(average.average["bias"], model.bias.detach())
    nn.init.constant_(model.bias, 4.0)
    begun = average.average["bias"].clone()
    average.update(model)
    decay = min(0.5, 2 / 11)
    torch.testing.assert_close(average.average["bias"], decay * begun + (1 - decay) * 4.0)


def test_resumed_average_of_several_batches_a_step(toy: Any, tmp_path: Path) -> None:
    settings = (
        "training.ema.enabled=true", "training.ema.every=2", "trainer.accumulate_grad_batches=2",
        "training.freeze=[{pattern: inner, until: 2}]", "training.finish=[]",
    )  # fmt: skip
    run(toy(*settings, f"run_dir={tmp_path / 'whole'}", "trainer.max_steps=6"), "train")
    run(toy(*settings, f"run_dir={tmp_path / 'parts'}", "trainer.max_steps=2"), "train")
    last = tmp_path / "parts" / "ckpts" / "last.ckpt"
    run(toy(*settings, f"run_dir={tmp_path / 'parts'}", "trainer.max_steps=6"), "train", resume=last)
    whole = load_checkpoint(tmp_path / "whole" / "ckpts" / "last.ckpt")["callbacks"]["EMA"]
    parts = load_checkpoint(last)["callbacks"]["EMA"]
    assert whole["updates"] == parts["updates"] == 3
    assert all(torch.equal(parts["average"][name], value) for name, value in whole["average"].items())


def test_checkpoints_of_weights_alone_have_the_average(toy: Any, tmp_path: Path) -> None:
    settings = ("training.ema.enabled=true", "training.finish=[]", "training.checkpoint_every=9")
    alone = "checkpoint={every_n_train_steps: 3, save_weights_only: true, filename: weights}"
    run(toy(*settings, alone), "train")
    ckpts = tmp_path / "run" / "ckpts"
    content = load_checkpoint(ckpts / "weights.ckpt")
    average = averaged_state(content)["inner.weight"]
    assert "optimizer_states" not in content and not torch.equal(
        average, content["state_dict"]["inner.weight"]
    )
    run(toy(*settings), "export", resume=ckpts / "weights.ckpt")
    assert (tmp_path / "run" / "answer.txt").read_text() == str(average.tolist())

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from maquette.core.errors import ConfigError
from maquette.core.loading import load_checkpoint
from maquette.training.craft.freezing import Freeze, freeze_for_good
from maquette.training.craft.rules import FreezeRule, freeze_rules
from maquette.training.run import run


class Two(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1, 1), nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def content(folder: Path) -> dict[str, Any]:
    return load_checkpoint(folder / "ckpts" / "last.ckpt")


def test_rules_are_texts_or_windows() -> None:
    rules = freeze_rules(["a", {"pattern": "b.*", "since": 2, "until": 4}])
    assert rules[0].for_good and not rules[1].for_good
    assert [rules[1].holds_at(step) for step in range(5)] == [False, False, True, True, False]


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (3, r"training.freeze\[0\]"),
        ({"pattern": "a", "after": 1}, "Unknown key training.freeze"),
        ({"since": 1}, "no default"),
        ({"pattern": "a", "since": 3, "until": 3}, "a step after 3"),
        ({"pattern": "a", "since": -1}, "a step >= 0"),
    ],
)
def test_rules_that_cannot_be(entry: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        freeze_rules([entry])


def test_frozen_for_good_is_not_in_the_optimizer(toy: Any, tmp_path: Path) -> None:
    run(toy("training.freeze=[inner]", "training.finish=[]"), "train")
    checkpoint = content(tmp_path / "run")
    assert torch.equal(checkpoint["state_dict"]["inner.weight"], torch.ones(2))
    assert not torch.equal(checkpoint["state_dict"]["outer.weight"], torch.ones(2))
    assert [len(group["params"]) for group in checkpoint["optimizer_states"][0]["param_groups"]] == [1]


def test_unknown_pattern_leaves_no_folder(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="near: inner"):
        run(toy("training.freeze=[iner]"), "train")
    assert not (tmp_path / "run").exists()


class Watch(Callback):
    def __init__(self) -> None:
        self.weights: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.weights.append(float(pl_module.inner.weight.detach().sum()))


WINDOW = "training.freeze=[{pattern: inner, since: 1, until: 3}]"


def test_window_of_steps(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    monkeypatch.setattr(toy.system, "configure_callbacks", lambda self: [watch])
    run(toy(WINDOW, "trainer.max_steps=5", "training.finish=[]"), "train")
    moved = [a != b for a, b in zip([2.0, *watch.weights], watch.weights, strict=False)]
    assert moved == [True, False, False, True, True]
    state = content(tmp_path / "run")["optimizer_states"][0]["state"]
    assert [int(one["step"]) for one in state.values()] == [3, 5]  # inner waited for two steps


@pytest.mark.parametrize("stop", [2, 3])
def test_resumed_within_a_window_and_at_its_end(toy: Any, tmp_path: Path, stop: int) -> None:
    whole, parts = f"run_dir={tmp_path / 'whole'}", f"run_dir={tmp_path / 'parts'}"
    run(toy(WINDOW, whole, "trainer.max_steps=5", "training.finish=[]"), "train")
    run(toy(WINDOW, parts, f"trainer.max_steps={stop}", "training.finish=[]"), "train")
    last = tmp_path / "parts" / "ckpts" / "last.ckpt"
    run(toy(WINDOW, parts, "trainer.max_steps=5", "training.finish=[]"), "train", resume=last)
    one, two = content(tmp_path / "whole")["state_dict"], content(tmp_path / "parts")["state_dict"]
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_several_processes_drop_the_gradients_that_they_exchange() -> None:
    model = Two()
    freeze = Freeze([FreezeRule(pattern="first", until=1)])
    trainer = mock.MagicMock(spec=Trainer, global_step=0, world_size=2)
    freeze.on_train_start(trainer, model)
    freeze.on_train_batch_start(trainer, model, None, 0)
    model(torch.ones(1, 1)).sum().backward()
    assert model.first.weight.requires_grad and model.first.weight.grad is not None
    freeze.on_before_optimizer_step(trainer, model, mock.MagicMock(spec=Optimizer))
    assert model.first.weight.grad is None and model.second.weight.grad is not None
    trainer.global_step = 1
    freeze.on_train_batch_start(trainer, model, None, 1)
    model(torch.ones(1, 1)).sum().backward()
    freeze.on_before_optimizer_step(trainer, model, mock.MagicMock(spec=Optimizer))
    assert model.first.weight.grad is not None


def test_what_was_frozen_before_stays_so() -> None:
    model = Two()
    freeze_for_good(model, freeze_rules(["first.bias"]))
    freeze = Freeze([FreezeRule(pattern="first", until=1)])
    trainer = mock.MagicMock(spec=Trainer, global_step=0, world_size=1)
    freeze.on_train_start(trainer, model)
    freeze.on_train_batch_start(trainer, model, None, 0)
    assert [one.requires_grad for one in model.parameters()] == [False, False, True, True]
    freeze.on_fit_end(trainer, model)
    assert [one.requires_grad for one in model.parameters()] == [True, False, True, True]

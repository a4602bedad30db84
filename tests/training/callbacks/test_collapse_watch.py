"""A run that goes wrong says where."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maquette.core.errors import CollapseError
from maquette.core.loading import load_checkpoint
from maquette.training.callbacks.collapse import CollapseWatch, last_loss
from maquette.training.config import CollapseConfig
from maquette.training.run import run


class Logarithm(nn.Module):
    """Not a number below zero."""

    def forward(self, x: Tensor) -> Tensor:
        return x.log()


def with_layers(toy: Any, monkeypatch: pytest.MonkeyPatch, loss: Any) -> None:
    """A toy with a chain of modules, and a loss of its own."""
    original = toy.system.configure

    def configure(self: Any) -> None:
        original(self)
        self.chain = nn.Sequential(nn.Linear(2, 2), Logarithm())

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.set_loss("fit", loss(self, batch))
        return {"loss": self.total_loss()}

    monkeypatch.setattr(toy.system, "configure", configure)
    monkeypatch.setattr(toy.system, "training_step", training_step)


def test_the_module_where_it_arose_is_named(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: Any, batch: Tensor) -> Tensor:
        low = batch.abs() + (1.0 if self.global_step < 2 else -100.0)
        return self.chain[1](low).mean() * self.inner.weight.sum()

    with_layers(toy, monkeypatch, step)
    with pytest.raises(
        CollapseError, match=r"nan at step 3: it arose in chain\.1 \(Logarithm\), from finite"
    ):
        run(toy(), "train")


def test_weights_are_not_spoilt_by_the_step_that_is_called_off(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: Any, batch: Tensor) -> Tensor:
        return self.inner.weight.sum() * (math.inf if self.global_step == 2 else 1.0)

    with_layers(toy, monkeypatch, step)
    with pytest.raises(CollapseError, match="inf at step 3") as caught:
        run(toy("training.checkpoint_every=1"), "train")
    assert "train/loss_fit = inf" in caught.value.details
    kept = load_checkpoint(tmp_path / "run" / "ckpts" / "last.ckpt")
    assert kept["global_step"] == 2 and all(one.isfinite().all() for one in kept["state_dict"].values())


def test_the_derivative_that_is_no_number_is_named_with_its_line(
    toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: Any, batch: Tensor) -> Tensor:
        return (self.inner.weight * 0.0).sqrt().sum() * 0.0 + self.outer.weight.sum()

    with_layers(toy, monkeypatch, step)
    with pytest.raises(CollapseError) as caught:
        run(toy("training.collapse.every=1"), "train")
    text = str(caught.value)
    assert "a gradient is nan at step 1: it arose in the derivative of SqrtBackward" in text
    assert "test_collapse_watch.py" in text and "in inner.weight" in text


def test_weights_that_were_spoilt_between_two_looks_are_named(
    toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: Any, batch: Tensor) -> Tensor:
        return (self.inner.weight * 0.0).sqrt().sum() * 0.0 + self.outer.weight.sum()

    with_layers(toy, monkeypatch, step)
    with pytest.raises(CollapseError, match=r"step 2: the weights are not finite \(inner\.weight\)"):
        run(toy("training.collapse.every=4"), "train")


def test_gradients_that_explode_end_the_run_after_some_patience() -> None:
    watch = CollapseWatch(CollapseConfig(patience=20, gradient_factor=100.0))
    for step in range(0, 100, 10):
        watch.look(step, 1.0 + step / 100)
    watch.look(100, 1e3)
    watch.look(110, 1.0)  # one bad step is none
    for step in (120, 130):
        watch.look(step, 1e3)
    again = CollapseWatch(watch.cfg)
    again.load_state_dict(watch.state_dict())
    with pytest.raises(CollapseError, match="exploded since step 120"):
        again.look(140, 1e3)


def test_a_gradient_scaler_may_overflow(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: Any, batch: Tensor) -> Tensor:
        return (self.inner.weight * 0.0).sqrt().sum() * 0.0 + self.outer.weight.sum()

    with_layers(toy, monkeypatch, step)
    once = ("training.collapse.every=1", "trainer.max_steps=1", "training.finish=[]")
    result = run(toy("training.precision_on_cpu=16-mixed", *once), "train")
    assert result.global_step == 1


def test_nothing_is_watched_when_it_is_switched_off(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_layers(toy, monkeypatch, lambda self, batch: self.inner.weight.sum() * math.nan)
    result = run(toy("training.collapse.enabled=false", "training.finish=[]"), "train")
    assert math.isnan(result.last_loss) and result.global_step == 4


def test_the_last_loss_is_in_the_checkpoint(toy: Any, tmp_path: Path) -> None:
    result = run(toy("training.finish=[]", "training.collapse.every=2"), "train")
    state = load_checkpoint(tmp_path / "run" / "ckpts" / "last.ckpt")["callbacks"]["CollapseWatch"]
    assert state["last_loss"] == result.last_loss and len(state["norms"]) == 2
    assert math.isnan(last_loss([]))


def test_the_last_loss_is_that_of_a_batch_however_many_make_a_step(
    toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_layers(toy, monkeypatch, lambda self, batch: self.inner.weight.sum() * 0.0 + 6.0)
    result = run(toy("trainer.accumulate_grad_batches=3", "system.loss.lambda_fit=1.0"), "train")
    assert result.last_loss == pytest.approx(6.0)


def test_a_repeat_that_breaks_is_no_origin(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def step(self: Any, batch: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 1:
            raise ValueError
        return (self.inner.weight * 0.0).sqrt().sum() * 0.0

    with_layers(toy, monkeypatch, step)
    with pytest.raises(CollapseError) as caught:
        run(toy("training.collapse.every=1"), "train")
    text = str(caught.value)
    assert "a gradient is nan at step 1" in text and "arose" not in text
    assert "the step could not be repeated: ValueError" in text


def test_the_repeat_has_the_precision_of_the_step(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []

    def step(self: Any, batch: Tensor) -> Tensor:
        seen.append((self.inner.weight[None] @ self.inner.weight[:, None]).dtype)
        return (self.inner.weight * 0.0).sqrt().sum() * 0.0 + (math.nan if len(seen) < 3 else 0.0)

    with_layers(toy, monkeypatch, step)
    half = ("trainer.precision=bf16-mixed", "training.precision_on_cpu=bf16-mixed")
    with pytest.raises(CollapseError, match="the loss is nan"):
        run(toy(*half), "train")
    assert seen == [torch.bfloat16] * 2

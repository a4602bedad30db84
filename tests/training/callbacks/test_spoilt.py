"""Weights that nothing can be computed from end a run whose loss and gradients look sound."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.core.errors import CollapseError
from maquette.core.loading import load_checkpoint
from maquette.training.run import run

NO_FILES = "training.finish=[]"


def with_step(toy: Any, monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """A toy whose loss and gradients are always 1 and 0, and whose state ``change`` spoils."""

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        with torch.no_grad():
            change(self)
        self.set_loss("fit", 1.0 + 0.0 * self.outer.weight.sum())
        return {"loss": self.total_loss()}

    monkeypatch.setattr(toy.system, "training_step", training_step)


@pytest.mark.parametrize(
    ("value", "state"), [(math.nan, "not finite"), (-math.inf, "not finite"), (1e30, "too large")]
)
def test_the_parameter_is_named_with_its_rate(
    value: float, state: str, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(self: Any) -> None:
        if self.global_step == 1:
            self.inner.weight[0] = value

    with_step(toy, monkeypatch, change)
    cfg = toy("training.collapse.every=2", "training.checkpoint_every=1", "system.optimizer.args.lr=0.25")
    with pytest.raises(
        CollapseError, match=rf"after step 2 the weights of inner\.weight .* {state}"
    ) as caught:
        run(cfg, "train")
    assert "its learning rate: 0.25" in caught.value.details
    assert "lower the learning rate" in str(caught.value.hint)
    kept = load_checkpoint(tmp_path / "run" / "ckpts" / "last.ckpt")
    assert kept["global_step"] == 1


def test_half_precision_is_told_first(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_step(toy, monkeypatch, lambda self: self.inner.weight.fill_(math.nan))
    with pytest.raises(CollapseError, match="not finite") as caught:
        run(toy("training.collapse.every=1", "training.precision_on_cpu=bf16-mixed"), "train")
    assert str(caught.value.hint).startswith("use trainer.precision=32, or lower")


def test_a_buffer_that_becomes_nan_is_named(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original = toy.system.configure

    def configure(self: Any) -> None:
        original(self)
        self.inner.register_buffer("unknown", torch.tensor([math.nan, 1.0]))
        self.inner.register_buffer("limits", torch.tensor([-math.inf, math.inf]))
        self.inner.register_buffer("seen", torch.ones(2))

    monkeypatch.setattr(toy.system, "configure", configure)
    with_step(toy, monkeypatch, lambda self: None)
    assert run(toy("training.collapse.every=1", NO_FILES), "train").global_step == 4

    with_step(toy, monkeypatch, lambda self: self.inner.seen.fill_(math.nan))
    with pytest.raises(CollapseError, match=r"after step 2 inner\.seen \(\w+\) holds NaN"):
        run(toy("training.collapse.every=2"), "train", overwrite=True)


def test_nobody_looks_when_it_is_switched_off(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_step(toy, monkeypatch, lambda self: self.inner.weight.fill_(math.nan))
    assert run(toy("training.collapse.enabled=false", NO_FILES), "train").global_step == 4

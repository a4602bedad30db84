"""What is done to a model before it is trained, and in which order."""

from typing import Any

import pytest
import torch

from maquette.training.config import TrainingConfig
from maquette.training.craft import apply
from maquette.training.craft.apply import craft_callbacks, prepare
from maquette.training.craft.freezing import Freeze


def test_weights_are_drawn_then_frozen_laid_out_compiled_and_cut(
    toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    steps = (
        "initialise", "freeze_for_good", "use_channels_last", "compile_modules", "use_gradient_checkpointing",
    )  # fmt: skip
    for name in steps:
        monkeypatch.setattr(apply, name, lambda *args, name=name: done.append(name) or [])
    block = TrainingConfig(init=[{"pattern": ".*", "scheme": "zeros"}])
    prepare(toy.system(None, seed=1), block)
    assert done == list(steps)
    done.clear()
    prepare(toy.system(None, seed=1, resumed=True), block)
    assert done == list(steps[1:]), "a run that is resumed has its weights"


def test_what_is_frozen_for_good_needs_no_callback(toy: Any) -> None:
    system = toy.system(None, seed=1)
    prepare(system, TrainingConfig(freeze=["inner"], init=[{"pattern": "outer", "scheme": "zeros"}]))
    assert [one.requires_grad for one in (system.inner.weight, system.outer.weight)] == [False, True]
    assert torch.equal(system.outer.weight, torch.zeros(2))
    assert craft_callbacks(TrainingConfig(freeze=["inner"])) == []
    (callback,) = craft_callbacks(TrainingConfig(freeze=["inner", {"pattern": "outer", "until": 2}]))
    assert isinstance(callback, Freeze) and [one.pattern for one in callback.rules] == ["outer"]

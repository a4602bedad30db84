"""Tensors that pile up are found and named."""

import time
from typing import Any

import pytest
import torch

from maquette.training.callbacks.growth import GrowthWatch
from maquette.training.observing import GrowthConfig
from maquette.training.profiling.tensors import live_bytes
from maquette.training.run import run

WATCH = ("training.growth.every=1", "training.growth.rises=2", "trainer.max_steps=8", "training.finish=[]")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch looks whenever it is asked to, however short the run."""
    monkeypatch.setattr(GrowthWatch, "_too_soon", lambda self: False)


def test_a_retained_graph_is_named_with_its_holder_and_its_line(
    toy: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, impatient: None
) -> None:
    original = toy.system.training_step

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.__dict__.setdefault("history", []).append((self.inner.weight * 3.0).sum())
        return original(self, batch, batch_idx)

    monkeypatch.setattr(toy.system, "training_step", training_step)
    with caplog.at_level("WARNING", logger="maquette"):
        run(toy(*WATCH), "train")
    (told,) = [one.message for one in caplog.records if "Memory grows" in one.message]
    assert "more of float32 [] with the graph of SumBackward0, held by history (ToySystem)" in told
    assert "test_growth.py" in told and "in training_step" in told and ".detach()" in told


def test_plain_tensors_that_pile_up_are_named(
    toy: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, impatient: None
) -> None:
    original = toy.system.training_step

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.inner.__dict__.setdefault("cache", {})[self.global_step] = torch.zeros(100_000)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(toy.system, "training_step", training_step)
    with caplog.at_level("WARNING", logger="maquette"):
        run(toy(*WATCH), "train")
    (told,) = [one.message for one in caplog.records if "Memory grows" in one.message]
    assert "more of float32 [100000], held by inner.cache (ToyPart)" in told and "graph" not in told


def test_a_run_that_keeps_nothing_is_left_alone(
    toy: Any, caplog: pytest.LogCaptureFixture, impatient: None
) -> None:
    with caplog.at_level("WARNING", logger="maquette"):
        run(toy(*WATCH, "trainer.max_steps=4"), "train")
    assert "Memory grows" not in caplog.text


def test_there_is_one_look_a_step_however_many_batches_make_it(
    toy: Any, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    steps: list[int] = []
    monkeypatch.setattr(GrowthWatch, "_look", lambda self, census: steps.append(self.step))
    run(toy(*WATCH, "trainer.max_steps=4", "trainer.accumulate_grad_batches=3"), "train")
    assert steps == [1, 2, 3, 4]


def test_a_look_waits_until_it_costs_little() -> None:
    watch = GrowthWatch(GrowthConfig(), cost=10.0)
    watch._looked = time.perf_counter()
    assert watch._too_soon()
    watch._cost = 0.0
    assert not watch._too_soon()


def test_memory_that_is_shared_counts_once() -> None:
    before = live_bytes()
    kept = torch.zeros(1000)
    views = [kept[i:] for i in range(5)]
    assert live_bytes() - before == 4000 and len(views) == 5

"""What is called when, from the first line of a run to its last.

The order is that of Lightning's own table and of the table of the framework whose recipes are read here.
Four things differ from the older of these tables:

- Optimizers are tried out before anything is set up or written: a mistake in them must not cost the run that
  is being replaced or resumed.
- ``on_fit_start`` stands where ``on_pretrain_routine_start`` and ``_end`` were, which Lightning has given
  up; the loaders are made after it, once, and not epoch by epoch.
- Gradients are cleared before ``backward`` and not after the step: Lightning passes the whole of
  ``training_step``, clearing and ``backward`` to the optimizer, as a closure.
- After a batch of training the modules are told that the step is over before any callback is, so that
  averages and checkpoints hold the finished step. In evaluations nothing is averaged or saved, and callbacks
  come first as everywhere.
"""

import functools
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from maquette.core.base import Updateable
from maquette.core.registry import find, registry
from maquette.training.run import run

STAGES = ("train", "validation", "test", "predict")
EACH = [f"{stage}_{part}" for stage in STAGES for part in ("epoch", "batch")]
EVERYWHERE = [
    "setup", "on_fit_start", *(f"on_{stage}_{when}" for stage in STAGES for when in ("start", "end")),
    *(f"on_{one}_{when}" for one in EACH for when in ("start", "end")),
    "on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad",
    "on_save_checkpoint", "on_load_checkpoint", "on_fit_end", "teardown",
]  # fmt: skip
"""Hooks that modules and callbacks both have."""
OF_A_MODULE = [
    *EVERYWHERE, "configure", "load_weights", "post_configure", "configure_callbacks", "configure_model",
    "configure_optimizers", "validation_step", "test_step", "predict_step", "backward", "optimizer_step",
    "optimizer_zero_grad", "finish",
]  # fmt: skip
OF_DATA = ["prepare_data", "setup", "train_dataloader", "val_dataloader", "test_dataloader",
           "predict_dataloader", "teardown"]  # fmt: skip
ONE_OF_EACH = [
    "system_type=recorded-system", "data_type=recorded-data", "trainer.val_check_interval=1",
    *(f"trainer.limit_{stage}_batches=1" for stage in ("val", "test", "predict")),
]  # fmt: skip


def recorded(base: type, hooks: Iterable[str], prefix: str, calls: list[str]) -> type:
    """A class whose hooks write down that they were called."""

    def made(hook: str) -> Any:
        original = getattr(base, hook)

        @functools.wraps(original)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(f"{prefix}{hook}")
            return original(self, *args, **kwargs)

        method.__signature__ = inspect.signature(original)
        del method.__wrapped__  # by which Lightning would take it for the one of the base class
        return method

    return type(f"Recorded{base.__name__}", (base,), {hook: made(hook) for hook in hooks})


@pytest.fixture
def order(toy: Any, calls: list[str], tmp_path: Path) -> Any:
    """Carries out a run and gives everything that was called."""

    class Views(Dataset[Tensor], Updateable):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Tensor:
            return torch.ones(2)

        def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
            calls.append(f"dataset.update {global_step}")

        def update_step_end(self, epoch: int, global_step: int) -> None:
            calls.append(f"dataset.update_end {global_step}")

    class Data(find("toy-data", "data")):  # type: ignore[misc]
        def val_dataloader(self) -> DataLoader[Tensor]:
            return DataLoader(Views())

        test_dataloader = predict_dataloader = val_dataloader

    watch = recorded(Callback, EVERYWHERE, "callback.", calls)
    watched = type("Watched", (toy.system,), {"configure_callbacks": lambda self: [watch()]})
    registry.register("recorded-system", "system")(recorded(watched, OF_A_MODULE, "", calls))
    registry.register("recorded-data", "data")(recorded(Data, OF_DATA, "data.", calls))

    def go(mode: str, *overrides: str, **options: Any) -> list[str]:
        calls.clear()
        run(toy(*ONE_OF_EACH, *overrides), mode, **options)
        return list(calls)

    return go


def both(hook: str) -> list[str]:
    """Callbacks come before the module."""
    return [f"callback.{hook}", hook]


def told(what: str, step: int) -> list[str]:
    """The dataset, then the modules: children first, each exactly once."""
    return [f"{one}.{what} {step}" for one in ("dataset", "inner", "outer", "system")]


MADE = ["configure", "post_configure"]
TRIED = ["configure_optimizers"]
SET_UP = ["configure_callbacks", "data.prepare_data", "data.setup", *both("setup"), "configure_model"]
TORN_DOWN = ["data.teardown", *both("teardown")]


def training(step: int) -> list[str]:
    """An epoch of one batch, with a validation after it."""
    return [
        *both("on_train_start"), *both("on_train_epoch_start"), *both("on_train_batch_start"),
        "preprocess train", *told("update", step),
        "optimizer_step", "training_step", *both("on_before_zero_grad"), "optimizer_zero_grad",
        *both("on_before_backward"), "backward", *both("on_after_backward"),
        *both("on_before_optimizer_step"),
        *told("update_end", step + 1), *both("on_train_batch_end"),
        *evaluation("validation", step + 1),
        *both("on_train_epoch_end"), "callback.on_train_end", *both("on_save_checkpoint"), "on_train_end",
        *both("on_fit_end"),
    ]  # fmt: skip


def evaluation(stage: str, step: int) -> list[str]:
    """One view."""
    return [
        *both(f"on_{stage}_start"), *both(f"on_{stage}_epoch_start"), *both(f"on_{stage}_batch_start"),
        f"preprocess {stage}", *told("update", step),
        f"{stage}_step",
        *both(f"on_{stage}_batch_end"), *told("update_end", step),
        *both(f"on_{stage}_epoch_end"), *both(f"on_{stage}_end"),
    ]  # fmt: skip


FIT = ["configure_optimizers", *both("on_fit_start"), "data.train_dataloader", "data.val_dataloader"]


def test_training_then_test_then_export(order: Any) -> None:
    assert order("train", "trainer.max_steps=1") == [
        *MADE, *TRIED, *SET_UP, *FIT, *training(0), *TORN_DOWN,
        *SET_UP, "data.test_dataloader", *evaluation("test", 1), *TORN_DOWN,
        *SET_UP, "data.predict_dataloader", *evaluation("predict", 1), *TORN_DOWN,
        "finish",
    ]  # fmt: skip


def test_the_other_modes_and_resuming_know_the_step(order: Any, tmp_path: Path) -> None:
    order("train", "trainer.max_steps=1", "training.finish=[]")
    last = tmp_path / "run" / "ckpts" / "last.ckpt"
    restored = told("update", 1)[1:]
    for mode, loader, stage in (
        ("validate", "val", "validation"), ("test", "test", "test"), ("export", "predict", "predict"),
    ):  # fmt: skip
        expected = [*MADE, *restored, *SET_UP, f"data.{loader}_dataloader", *evaluation(stage, 1), *TORN_DOWN]
        assert order(mode, resume=last) == expected + (["finish"] if mode == "export" else []), mode
    loaded = ["on_load_checkpoint", "callback.on_load_checkpoint"]
    again = order("train", "trainer.max_steps=2", "training.finish=[]", resume=last)
    assert again == [*MADE, *TRIED, *SET_UP, *loaded, *FIT, *training(1), *TORN_DOWN]


def test_weights_are_there_before_post_configure(order: Any, tmp_path: Path) -> None:
    order("train", "trainer.max_steps=1", "training.finish=[]")
    weights = f"system.weights={tmp_path / 'run' / 'ckpts' / 'last.ckpt'}"
    elsewhere = [weights, f"run_dir={tmp_path / 'other'}"]
    made = order("train", "trainer.max_steps=1", "training.finish=[]", *elsewhere)[:6]
    assert made == ["configure", "load_weights", *told("update", 1)[1:], "post_configure"]

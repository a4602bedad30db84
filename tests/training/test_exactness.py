"""What only looks does not change a run by a bit, and a resumed run is the one that was not interrupted."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from maquette.core.errors import RunFailed
from maquette.core.loading import load_checkpoint
from maquette.core.random import RandomStreams
from maquette.core.registry import find
from maquette.training.run import run

QUICK = ("training.finish=[]", "training.ema.enabled=true")


class FromHere(IterableDataset[Tensor]):
    """A point for each batch of a step, beginning with the step at which an epoch begins."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def __iter__(self) -> Iterator[Tensor]:
        first = self.trainer.global_step
        for number in itertools.count():
            step, part = divmod(number, self.trainer.accumulate_grad_batches)
            yield RandomStreams(3).at(first + step, [part]).normal("x", 2)[0]


@pytest.fixture
def noisy(toy: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model of two parameters, with what makes resuming hard: it draws from the global generator, in
    training and in validation, and has a state that changes when a step is over.
    """
    original = toy.system.configure

    def configure(self: Any) -> None:
        original(self)
        self.register_buffer("ended", torch.zeros(()))

    def training_step(self: Any, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        dropped = torch.nn.functional.dropout(batch, 0.3) + 0.1 * self.ended
        self.set_loss("fit", (dropped * self.inner.weight + self.outer.weight - 0.5).square().mean())
        return {"loss": self.total_loss()}

    def validation_step(self: Any, batch: Tensor, batch_idx: int) -> None:
        torch.rand(3)

    def update_step_end(self: Any, epoch: int, global_step: int) -> None:
        if self.trainer.training:
            self.ended += torch.rand(())

    def train_dataloader(self: Any) -> DataLoader[Tensor]:
        return DataLoader(FromHere(self.trainer), batch_size=1)

    monkeypatch.setattr(find("toy-data", "data"), "train_dataloader", train_dataloader)
    for function in (configure, training_step, validation_step, update_step_end):
        monkeypatch.setattr(toy.system, function.__name__, function)
    return toy


def content(folder: Path, name: str = "last.ckpt") -> dict[str, Any]:
    return load_checkpoint(folder / "ckpts" / name)


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Weights, moments of the optimizer, averages and schedules are equal bit for bit."""
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")
    pairs = [(first[name], second[name]) for name in kept]
    averages = [one["callbacks"]["EMA"] for one in (first, second)]
    return all(equal(a, b) for a, b in [*pairs, tuple(averages)])


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


@pytest.mark.parametrize(
    "words",
    [
        ["trainer.limit_val_batches=1.0", "trainer.val_check_interval=2"],
        ["training.loggers=[]"],
        ["training.loggers=[csv,tensorboard]", "trainer.log_every_n_steps=2"],
        ["training.checkpoint_every=1", "checkpoint={every_n_train_steps: 2, save_top_k: -1}"],
        ["training.collapse.enabled=false"],
    ],
    ids=["validation", "no logs", "logs", "checkpoints", "no watch"],
)
def test_what_only_looks_changes_nothing(noisy: Any, tmp_path: Path, words: list[str]) -> None:
    run(noisy(*QUICK, f"run_dir={tmp_path / 'plain'}"), "train")
    run(noisy(*QUICK, *words, f"run_dir={tmp_path / 'other'}"), "train")
    assert same(content(tmp_path / "plain"), content(tmp_path / "other"))


def test_listeners_change_nothing(noisy: Any, tmp_path: Path) -> None:
    run(noisy(*QUICK, f"run_dir={tmp_path / 'plain'}"), "train")
    heard = noisy(*QUICK, f"run_dir={tmp_path / 'heard'}")
    run(heard, "train", listeners=[lambda event: torch.rand(5)])
    assert same(content(tmp_path / "plain"), content(tmp_path / "heard"))


SCHEDULER = "system.scheduler={name: StepLR, interval: step, args: {step_size: 2, gamma: 0.5}}"
PLATEAU = (
    "system.scheduler={{name: ReduceLROnPlateau, interval: {}, monitor: train/loss, "
    "args: {{patience: 0, factor: 0.5, mode: max}}}}"
)


@pytest.mark.parametrize("name", ["step=2.ckpt", "step=3.ckpt"])
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["trainer.accumulate_grad_batches=3"],
        ["trainer.limit_train_batches=2", "system.scheduler.interval=epoch"],
        ["trainer.limit_val_batches=1.0", "trainer.val_check_interval=3"],
        [PLATEAU.format("step")],
        [PLATEAU.format("step"), "system.scheduler.frequency=2", "trainer.accumulate_grad_batches=3"],
        [PLATEAU.format("epoch"), "trainer.limit_train_batches=2"],
    ],
    ids=["plain", "accumulation", "epochs", "validation", "plateau", "every other step", "plateau of epochs"],
)
def test_every_checkpoint_is_one_to_go_on_from_exactly(
    noisy: Any, tmp_path: Path, name: str, words: list[str]
) -> None:
    every = "checkpoint={every_n_train_steps: 1, save_top_k: -1, filename: '{step}'}"
    scheduler = [] if any("Plateau" in word for word in words) else [SCHEDULER]
    settings = (*QUICK, *scheduler, *words, "trainer.max_steps=6", every)
    run(noisy(*settings, f"run_dir={tmp_path / 'whole'}"), "train")
    checkpoint = tmp_path / "whole" / "ckpts" / name
    again = noisy(*settings, f"run_dir={tmp_path / 'again'}")
    assert run(again, "train", resume=checkpoint).global_step == 6
    assert same(content(tmp_path / "whole"), content(tmp_path / "again"))


def test_checkpoints_see_the_end_of_their_step(noisy: Any, tmp_path: Path) -> None:
    every = "checkpoint={every_n_train_steps: 4, save_top_k: -1, filename: '{step}'}"
    run(noisy(*QUICK, every), "train")
    one, other = (
        content(tmp_path / "run", name)["state_dict"]["ended"] for name in ("step=4.ckpt", "last.ckpt")
    )
    assert torch.equal(one, other) and float(one) > 0


def test_half_a_step_is_not_kept(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_before_optimizer_step(self: Any, optimizer: Any) -> None:
        if self.global_step == 3:
            raise ZeroDivisionError("after the gradients")

    monkeypatch.setattr(toy.system, "on_before_optimizer_step", on_before_optimizer_step, raising=False)
    with pytest.raises(RunFailed):
        run(toy(*QUICK, "training.checkpoint_every=2"), "train")
    assert content(tmp_path / "run")["global_step"] == 2


def test_what_changes_in_the_forward_pass_of_a_broken_step_is_not_kept(
    noisy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, breaks = noisy.system.training_step, [3]

    def training_step(self: Any, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        self.ended += 0.5 * self.inner.weight.detach().sum()  # as an occupancy grid is updated
        if self.global_step in breaks:
            raise ZeroDivisionError("after the update")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(noisy.system, "training_step", training_step)
    often = (*QUICK, "training.checkpoint_every=2")
    broken = noisy(*often, f"run_dir={tmp_path / 'broken'}")
    with pytest.raises(RunFailed):
        run(broken, "train")
    assert content(tmp_path / "broken")["global_step"] == 2
    breaks.clear()
    run(broken, "train", resume=tmp_path / "broken")
    run(noisy(*often, f"run_dir={tmp_path / 'whole'}"), "train")
    assert same(content(tmp_path / "broken"), content(tmp_path / "whole"))


def test_what_breaks_between_two_steps_keeps_the_last_one(
    noisy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = FromHere.__iter__

    def lost(self: Any) -> Iterator[Tensor]:
        yield from itertools.islice(original(self), 3)
        raise OSError("the data are gone")

    monkeypatch.setattr(FromHere, "__iter__", lost)
    with pytest.raises(RunFailed, match="the data are gone"):
        run(noisy(*QUICK), "train")
    assert 0 < content(tmp_path / "run")["global_step"] <= 3


def test_a_state_that_nobody_could_load_ends_the_run(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_save_checkpoint(self: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["mine"] = Path("x") if self.global_step == 2 else 0

    monkeypatch.setattr(toy.system, "on_save_checkpoint", on_save_checkpoint)
    with pytest.raises(RunFailed, match="nobody could load it"):
        run(toy(*QUICK, "training.checkpoint_every=1"), "train")
    assert content(tmp_path / "run")["global_step"] == 1
    assert [path.name for path in (tmp_path / "run" / "ckpts").iterdir()] == ["last.ckpt"]

"""A step of the optimizer may be made of several batches: everything that counts steps counts these."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from maquette.core.errors import ConfigError
from maquette.core.loading import load_checkpoint
from maquette.core.registry import registry
from maquette.data.random_camera import RandomCameraDataModule
from maquette.training.run import run


class Watch(Callback):
    """Step, weight of the loss, and rate of each batch."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float, float]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.seen.append((trainer.global_step, pl_module.loss_weight("fit"), round(rate, 6)))


SCHEDULER = ("system.scheduler={name: ExponentialLR, interval: step, args: {gamma: 0.5}}",)


@pytest.fixture
def watch(toy: Any, monkeypatch: pytest.MonkeyPatch) -> Watch:
    one = Watch()
    monkeypatch.setattr(toy.system, "configure_callbacks", lambda self: [one])
    return one


def test_weights_and_rates_follow_the_steps(toy: Any, watch: Watch) -> None:
    settings = (*SCHEDULER, "trainer.accumulate_grad_batches=3", "trainer.max_steps=3", "training.finish=[]")
    assert run(toy(*settings), "train").global_step == 3
    assert watch.seen == [
        *[(0, 1.0, 0.1)] * 3,
        *[(1, 1.25, 0.05)] * 3,
        *[(2, 1.5, 0.025)] * 3,
    ]


def test_a_frequency_counts_steps(toy: Any, watch: Watch) -> None:
    settings = ("system.scheduler.frequency=2", "trainer.accumulate_grad_batches=3", "training.finish=[]")
    run(toy(*SCHEDULER, *settings, "trainer.max_steps=5"), "train")
    assert [rate for _, _, rate in watch.seen[::3]] == [0.1, 0.1, 0.05, 0.05, 0.025]


def test_resumed_curve_is_the_same(toy: Any, tmp_path: Path, watch: Watch) -> None:
    settings = (*SCHEDULER, "trainer.accumulate_grad_batches=2", "training.finish=[]")
    run(toy(*settings, f"run_dir={tmp_path / 'whole'}", "trainer.max_steps=5"), "train")
    whole = list(watch.seen)
    watch.seen.clear()
    run(toy(*settings, f"run_dir={tmp_path / 'parts'}", "trainer.max_steps=2"), "train")
    last = tmp_path / "parts" / "ckpts" / "last.ckpt"
    run(toy(*settings, f"run_dir={tmp_path / 'parts'}", "trainer.max_steps=5"), "train", resume=last)
    assert watch.seen == whole and len(whole) == 10


class Points(IterableDataset[Tensor]):
    """The same points in the same order, however they are batched."""

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(1)
        while True:
            yield torch.randn(2, generator=generator)


def test_two_batches_of_one_are_one_of_two(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for name, size, batches in (("one", 2, 1), ("two", 1, 2)):
        data = registry.find("toy-data", "data")
        monkeypatch.setattr(data, "train_dataloader", lambda self, size=size: DataLoader(Points(), size))
        settings = (f"run_dir={tmp_path / name}", f"trainer.accumulate_grad_batches={batches}")
        ema = ("training.ema.enabled=true", "training.ema.decay=0.5", "training.finish=[]")
        run(toy(*settings, *ema), "train")
        results.append(load_checkpoint(tmp_path / name / "ckpts" / "last.ckpt"))
    one, two = results
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=1e-5, atol=1e-6)
    averages = [result["callbacks"]["EMA"] for result in results]
    assert [average["updates"] for average in averages] == [4, 4]
    for name, value in averages[0]["average"].items():
        torch.testing.assert_close(averages[1]["average"][name], value, rtol=1e-5, atol=1e-6)


def test_cameras_of_a_step_are_the_same_however_many_batches_make_it() -> None:
    def cameras(size: int, batches: int, count: int) -> Tensor:
        config = {"height": 4, "width": 4, "batch_size": size, "progressive_until": 3}
        data = RandomCameraDataModule(config)
        data.trainer = type("Held", (), {})()  # type: ignore[assignment]
        data.trainer.__dict__ |= {  # type: ignore[union-attr]
            "global_step": 0, "global_rank": 0, "world_size": 1, "accumulate_grad_batches": batches,
            "lightning_module": None,
        }  # fmt: skip
        stream = iter(data.train_dataloader())
        return torch.cat([next(stream)["c2w"] for _ in range(count)])

    torch.testing.assert_close(cameras(1, 4, 12), cameras(4, 1, 3), rtol=0, atol=0)
    torch.testing.assert_close(cameras(2, 2, 6), cameras(4, 1, 3), rtol=0, atol=0)


@pytest.mark.parametrize("how", ["norm", "value"])
def test_gradients_are_clipped_by_norm_or_value(toy: Any, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    class Norms(Callback):
        def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            gradients = [one.grad for one in pl_module.parameters() if one.grad is not None]
            if gradients:
                seen.append(float(torch.cat(gradients).abs().max()))

    monkeypatch.setattr(toy.system, "configure_callbacks", lambda self: [Norms()])

    def steep(self: Any, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        self.set_loss("fit", 100 * (self.inner.weight.sum() + self.outer.weight.sum()))
        return {"loss": self.total_loss()}

    monkeypatch.setattr(toy.system, "training_step", steep)
    clip = ("trainer.gradient_clip_val=0.1", f"trainer.gradient_clip_algorithm={how}", "training.finish=[]")
    run(toy(*clip), "train")
    assert seen[0] == pytest.approx(0.1 / (2 if how == "norm" else 1), rel=1e-4)


def test_a_plateau_is_that_of_a_logged_number(toy: Any, watch: Watch) -> None:
    plateau = (
        "system.scheduler.name=ReduceLROnPlateau", "system.scheduler.interval=step",
        "system.scheduler.monitor=train_params/lambda_fit", "system.scheduler.args.factor=0.5",
        "system.scheduler.args.patience=0", "training.finish=[]",
    )  # fmt: skip
    run(toy(*plateau, "trainer.accumulate_grad_batches=2", "trainer.max_steps=3"), "train")
    assert [rate for _, _, rate in watch.seen] == [0.1, 0.1, 0.1, 0.1, 0.05, 0.05]  # the weight only grows


def test_a_plateau_of_what_nobody_logs_is_refused(toy: Any) -> None:
    plateau = "system.scheduler={name: ReduceLROnPlateau, interval: step, monitor: val/loss}"
    with pytest.raises(ConfigError, match=r"system.scheduler.monitor.*(?s:.*)there are: .*train/loss"):
        run(toy(plateau, "training.finish=[]"), "train")
    run(toy(plateau, "training.finish=[]", "system.scheduler.strict=false"), "train", overwrite=True)

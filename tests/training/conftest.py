"""A model of two parameters and its data: everything the engine does, in milliseconds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from maquette.core.base import BaseModule, Updateable
from maquette.core.config import ExperimentConfig, load_config
from maquette.core.random import RandomStreams
from maquette.core.registry import registry
from maquette.training.base_system import BaseSystem


class Steps(IterableDataset[Tensor], Updateable):
    """One random point for each step, keyed by the step."""

    def __init__(self, start: int, calls: list[str]) -> None:
        self.start = start
        self.calls = calls

    def __iter__(self) -> Iterator[Tensor]:
        step = self.start
        while True:
            yield RandomStreams(3).at(step, [0]).normal("x", 2)[0]
            step += 1

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        self.calls.append(f"dataset.update {global_step}")

    def update_step_end(self, epoch: int, global_step: int) -> None:
        self.calls.append(f"dataset.update_end {global_step}")


class Views(Dataset[Tensor]):
    """Three fixed points."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((2,), float(index))


class ToyData(LightningDataModule):
    calls: list[str] = []

    def __init__(self, cfg: Any = None) -> None:
        super().__init__()

    def train_dataloader(self) -> DataLoader[Tensor]:
        batches = self.trainer.global_step * self.trainer.accumulate_grad_batches
        return DataLoader(Steps(batches, self.calls), batch_size=1)

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(Views(), batch_size=1)

    test_dataloader = predict_dataloader = val_dataloader


class ToyPart(BaseModule):
    calls: list[str] = []

    def configure(self, name: str = "part", child: Any = None) -> None:
        self.name = name
        self.child = child
        self.weight = nn.Parameter(torch.ones(2))

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        self.calls.append(f"{self.name}.update {global_step}")

    def update_step_end(self, epoch: int, global_step: int) -> None:
        self.calls.append(f"{self.name}.update_end {global_step}")


class ToySystem(BaseSystem):
    calls: list[str] = []

    def configure(self) -> None:
        self.inner = ToyPart(None, "inner")
        self.outer = ToyPart(None, "outer", self.inner)
        self.seen: list[float] = []

    def preprocess_data(self, batch: Any, stage: str) -> None:
        self.calls.append(f"preprocess {stage}")

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        self.calls.append(f"system.update {global_step}")

    def update_step_end(self, epoch: int, global_step: int) -> None:
        self.calls.append(f"system.update_end {global_step}")

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        self.calls.append("training_step")
        error = (batch * self.inner.weight + self.outer.weight - 0.5).square().mean()
        self.set_loss("fit", error)
        return {"loss": self.total_loss()}

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.seen.append(float(self.inner.weight.sum()))

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.seen.append(float(self.inner.weight.sum()))

    def predict_step(self, batch: Tensor, batch_idx: int) -> None:
        self.seen.append(float(self.inner.weight.sum()))

    def on_predict_epoch_end(self) -> None:
        self.save_json("answer.json", {"weight": self.inner.weight.tolist()})

    def finish(self, folder: Path) -> list[Path]:
        (folder / "answer.txt").write_text(str(self.inner.weight.tolist()))
        return [folder / "answer.txt"]


@pytest.fixture
def calls() -> list[str]:
    recorded: list[str] = []
    ToyData.calls = ToyPart.calls = ToySystem.calls = recorded
    return recorded


@pytest.fixture
def toy(tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes configs of a small run; the names are registered for one test only."""
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    registry.register("toy-data", "data")(ToyData)
    registry.register("toy-system", "system")(ToySystem)

    def make(*overrides: str) -> ExperimentConfig:
        recipe = {
            "format": "maquette/1",
            "run_dir": str(tmp_path / "run"),
            "data_type": "toy-data",
            "system_type": "toy-system",
            "system": {
                "loss": {"lambda_fit": [0, 1.0, 2.0, 4]},
                "optimizer": {"name": "Adam", "args": {"lr": 0.1, "betas": [0.9, 0.99]}},
            },
            "trainer": {
                "max_steps": 4,
                "log_every_n_steps": 1,
                "num_sanity_val_steps": 0,
                "limit_val_batches": 0,
            },
            "training": {"loggers": ["csv"], "snapshot_code": False},
        }
        return load_config(recipe, list(overrides))

    make.system = ToySystem  # type: ignore[attr-defined]
    return make

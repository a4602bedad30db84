"""Trains the network that reads kind, colour and view off a picture of toyworld."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maquette.data.toyworld.augment import degrade
from maquette.data.toyworld.dataset import COLOR_NAMES, KIND_NAMES
from maquette.data.toyworld.kinds import FRONTED
from maquette.io.data import write_safetensors
from maquette.models.networks.toy_cnn import ToyCNN, ToyLabels, classification_losses, sector_distance
from maquette.training.base_system import BaseSystem


class ToyClassifier(BaseSystem):
    """Four heads on one convolutional network; exports ``classifier.safetensors``."""

    @dataclass(kw_only=True)
    class Config(BaseSystem.Config):
        """Options of `toy-classifier-system`."""

        image_size: int = 64
        """Rows and columns of the pictures, as the data module makes them."""

        width: int = 24
        """Channels after the first convolution."""

    cfg: Config

    def configure(self) -> None:
        """Build the network."""
        self.network = ToyCNN(len(KIND_NAMES), len(COLOR_NAMES), self.cfg.image_size, self.cfg.width)
        fronted = torch.tensor([float(kind in FRONTED) for kind in KIND_NAMES])
        self.register_buffer("fronted", fronted, persistent=False)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Cross entropies on slightly spoiled pictures."""
        images = degrade(batch.images.float() / 255.0, batch.rng)
        labels = labels_of(batch)
        for name, value in classification_losses(
            self.network(images), labels, self.fronted[labels.kind]
        ).items():
            self.set_loss(name, value)
        return {"loss": self.total_loss()}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Share of right answers of each head; an azimuth counts when it is at most one sector off."""
        found, labels = self.network.labels(batch.images.float() / 255.0), labels_of(batch)
        for name in ("kind", "color", "elevation"):
            right = (found[name] == labels[name]).float().mean()
            self.log(f"val/{name}", right, batch_size=len(batch.images))
        fronted = self.fronted[labels.kind] > 0
        if fronted.any():
            near = (sector_distance(found.azimuth, labels.azimuth)[fronted] <= 1).float().mean()
            self.log("val/azimuth", near, batch_size=int(fronted.sum()))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """As in validation."""
        self.validation_step(batch, batch_idx)

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing to predict: the weights are the result."""

    def finish(self, folder: Path) -> list[Path]:
        """The weights at the top of the run."""
        return [write_safetensors(folder / "classifier.safetensors", self.network.state_dict())]


def labels_of(batch: Any) -> ToyLabels:
    """The labels of a batch."""
    return ToyLabels(kind=batch.kind, color=batch.color, azimuth=batch.azimuth, elevation=batch.elevation)

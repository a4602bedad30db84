"""What every datamodule knows: its random draws, the trainer's step, and its own part of a batch."""

from typing import Any, ClassVar, TypeVar

import torch
from lightning.pytorch import LightningDataModule
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, Dataset

from maquette.core.base import Configurable
from maquette.core.random import RandomStreams
from maquette.data.loading import BatchSource, Place, evaluation_loader, training_loader

__all__ = ["BaseDataModule", "Place"]

T = TypeVar("T")


class BaseDataModule(Configurable, LightningDataModule):
    """A configured datamodule; its draws are keyed by the run's seed, the step and the global sample."""

    kind: ClassVar[str] = "data"

    def __init__(self, cfg: Any = None, streams: RandomStreams | None = None) -> None:
        super().__init__(cfg)
        self._streams = streams

    @property
    def streams(self) -> RandomStreams:
        """The random draws of the run: as given, else the system's, else of the seed that torch was given."""
        if self._streams is None:
            system = getattr(self.trainer, "lightning_module", None)
            self._streams = getattr(system, "streams", None) or RandomStreams(torch.initial_seed())
        return self._streams

    def global_step(self) -> int:
        """The optimiser step that the trainer is at."""
        return 0 if self.trainer is None else int(self.trainer.global_step)

    def place(self) -> Place:
        """Which part of each global batch this process loads."""
        if self.trainer is None:
            return Place()
        accumulate = int(getattr(self.trainer, "accumulate_grad_batches", 1))
        return Place(self.trainer.global_rank, self.trainer.world_size, accumulate)

    def batch_source(self) -> BatchSource:
        """What the training batches of this process are made from."""
        return BatchSource(self.streams, self.global_step, self.place())

    def options(self) -> Any:
        """The config as a plain dataclass, quick to read and easy to send to workers."""
        return OmegaConf.to_object(self.cfg)

    def test_dataloader(self) -> Any:
        """What validation sees, unless a subclass says otherwise."""
        return self.val_dataloader()

    def predict_dataloader(self) -> Any:
        """What a test sees, unless a subclass says otherwise."""
        return self.test_dataloader()

    def training_loader(self, dataset: Dataset[T], **options: Any) -> DataLoader[T]:
        """A loader of training batches; see :func:`maquette.data.loading.training_loader`."""
        return training_loader(dataset, self.cfg, seed=self.streams.seed, rank=self.place().rank, **options)

    def evaluation_loader(self, dataset: Dataset[T], batch_size: int = 1, **options: Any) -> DataLoader[T]:
        """A loader of this process's share of an evaluation, in order."""
        return evaluation_loader(dataset, batch_size, self.place(), **options)

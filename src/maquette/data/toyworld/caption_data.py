"""Captions of toyworld as training data for a language model: a map-style dataset, split by a seed."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from torch.utils.data import DataLoader, Dataset, Sampler, Subset, random_split

from maquette.core.errors import ConfigError
from maquette.core.random import named_generator
from maquette.core.registry import register
from maquette.core.view_words import AZIMUTH_WORDS, ELEVATION_WORDS, view_phrase
from maquette.data.base import BaseDataModule
from maquette.data.loading import BatchSource, LoaderConfig
from maquette.data.toyworld.captions import name
from maquette.data.toyworld.kinds import KINDS
from maquette.data.toyworld.palette import PALETTE


class Captions(Dataset[str]):
    """Every toy in every color from every side and height, in a fixed order."""

    def __init__(self) -> None:
        views = [view_phrase(*pair) for pair in itertools.product(AZIMUTH_WORDS, ELEVATION_WORDS)]
        toys = [name(kind, color) for kind, color in itertools.product(KINDS, PALETTE)]
        self.texts = [f"{toy}, {view}" for toy, view in itertools.product(toys, views)]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> str:
        return self.texts[index]


class KeyedBatches(Sampler[list[int]]):
    """Endless batches of indices; each is a function of the seed, the step it is for, and its place.

    Args:
        count: items to draw from.
        size: items of a batch.
        source: of the batches.
    """

    def __init__(self, count: int, size: int, source: BatchSource) -> None:
        self.count, self.size, self.source = count, size, source

    def __iter__(self) -> Iterator[list[int]]:
        return (self.batch(step, part) for step, part in self.source.turns())

    def batch(self, step: int, part: int = 0) -> list[int]:
        """Batch ``part`` of those that make the optimiser step ``step``."""
        draws = self.source.draws(step, part, self.size)
        rows: list[int] = draws.integers("captions/row", 0, self.count - 1).tolist()
        return rows


@dataclass(kw_only=True)
class CaptionConfig(LoaderConfig):
    """Options of `toyworld-captions-datamodule`."""

    batch_size: int = 64
    """Captions of a training batch on each rank."""
    eval_batch_size: int = 256
    """Captions of an evaluation batch."""
    held_out: float = 0.1
    """Share of the captions that is kept for evaluation."""
    split_seed: int = 2026
    """Seed of the split, apart from that of the run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for one in ("batch_size", "eval_batch_size"):
            if getattr(self, one) < 1:
                raise ConfigError(f"data.{one}", getattr(self, one), "an integer >= 1")
        if not 0.0 < self.held_out < 1.0:
            raise ConfigError("data.held_out", self.held_out, "a number between 0 and 1")


@register("toyworld-captions-datamodule", kind="data")
class CaptionDataModule(BaseDataModule):
    """Batches are lists of texts; tokens are the model's business."""

    Config = CaptionConfig  # type: ignore[assignment]

    @cached_property
    def splits(self) -> list[Subset[str]]:
        """Training and evaluation captions, which share none."""
        generator = named_generator(self.cfg.split_seed, "captions/split")
        return random_split(Captions(), [1.0 - self.cfg.held_out, self.cfg.held_out], generator=generator)

    def train_dataloader(self) -> DataLoader[str]:
        """Endless batches from the optimiser step that the trainer is at."""
        captions = self.splits[0]
        batches = KeyedBatches(len(captions), self.cfg.batch_size, self.batch_source())
        return self.training_loader(captions, batch_sampler=batches, collate_fn=list)

    def val_dataloader(self) -> DataLoader[str]:
        """The captions kept for evaluation, in order."""
        return self.evaluation_loader(self.splits[1], self.cfg.eval_batch_size, collate_fn=list)

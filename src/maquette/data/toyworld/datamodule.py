"""Toyworld as training data: seeded pictures with captions and labels."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from maquette.core.errors import ConfigError
from maquette.core.output import MappingOutput
from maquette.core.paths import cache_dir
from maquette.core.random import RandomStreams, StepRandom
from maquette.core.registry import register
from maquette.data.base import BaseDataModule
from maquette.data.loading import BatchSource, KeyedStream, LoaderConfig, NumberedItems
from maquette.data.toyworld.dataset import KIND_NAMES, ToyPictures, cached_pictures
from maquette.data.toyworld.kinds import FRONTED


@dataclass(kw_only=True)
class ToyworldConfig(LoaderConfig):
    """Options of `toyworld-datamodule`."""

    cache_dir: str | None = None
    """Folder of the rendered pictures; by default `toyworld` in the cache of maquette."""
    views_per_toy: int = 300
    """Training pictures of every kind in every colour."""
    eval_views_per_toy: int = 4
    """Evaluation pictures of every kind in every colour, rendered with the next seed."""
    image_size: int = 64
    """Rows and columns of the pictures."""
    render_seed: int = 2026
    """Seed of cameras, light and backgrounds."""
    front_weight: float = 1.0
    """How many times as often as the others toys with a front are drawn in training."""
    batch_size: int = 32
    """Pictures of a training batch on each rank."""
    eval_batch_size: int = 64
    """Pictures of an evaluation batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("views_per_toy", "eval_views_per_toy", "batch_size", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"data.{name}", getattr(self, name), "an integer >= 1")
        if self.front_weight <= 0:
            raise ConfigError("data.front_weight", self.front_weight, "a number above 0")
        if self.image_size < 16 or self.image_size % 16:
            raise ConfigError("data.image_size", self.image_size, "a multiple of 16")


@dataclass
class ToyBatch(MappingOutput):
    """Pictures with everything their captions are made of; label indices as in `ToyPictures`."""

    images: UInt8[Tensor, "B 3 H W"]
    """Bytes."""
    kind: Int[Tensor, "B"]
    """Index of the kind."""
    color: Int[Tensor, "B"]
    """Index of the colour."""
    azimuth: Int[Tensor, "B"]
    """Azimuth sector."""
    elevation: Int[Tensor, "B"]
    """Elevation band."""
    captions: list[str]
    """Whole captions."""
    picture: Int[Tensor, "B"]
    """Row of each picture among all of its split."""
    rng: StepRandom
    """The draws of the step."""


class ToySplit:
    """All pictures of a split with their labels ready to be cut into batches.

    Args:
        pictures: the pictures.
        front_weight: how many times as often as the others toys with a front are drawn.
    """

    def __init__(self, pictures: ToyPictures, front_weight: float = 1.0) -> None:
        self.pictures = pictures
        self.sectors = pictures.sectors()
        self.bands = pictures.bands()
        weight = torch.tensor([front_weight if kind in FRONTED else 1.0 for kind in KIND_NAMES])
        self._upto = weight.double()[pictures.kind].cumsum(0)

    def __len__(self) -> int:
        return len(self.pictures)

    def rows_at(self, share: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
        """The rows at places in [0, 1) of all pictures, each as wide as its weight."""
        rows = torch.searchsorted(self._upto, share.double() * self._upto[-1], right=True)
        return rows.clamp_max(len(self) - 1)

    def batch(self, rows: Int[Tensor, "B"], rng: StepRandom) -> ToyBatch:
        """Some pictures."""
        return ToyBatch(
            images=self.pictures.images[rows],
            kind=self.pictures.kind[rows],
            color=self.pictures.color[rows],
            azimuth=self.sectors[rows],
            elevation=self.bands[rows],
            captions=[self.pictures.caption(row) for row in rows.tolist()],
            picture=rows,
            rng=rng,
        )


class ToyStream(KeyedStream[ToyBatch]):
    """Endless batches; a batch is a function of the seed, the step it is for and its place.

    Args:
        split: the pictures.
        size: pictures of a batch.
        source: of the batches.
    """

    def __init__(self, split: ToySplit, size: int, source: BatchSource) -> None:
        super().__init__(source)
        self.split, self.size = split, size

    def batch(self, step: int, part: int = 0) -> ToyBatch:
        """Batch ``part`` of those that make the optimiser step ``step``."""
        rng = self.source.draws(step, part, self.size)
        return self.split.batch(self.split.rows_at(rng.uniform("toyworld/picture")), rng)


class ToyRows(NumberedItems):
    """The rows of a split."""

    def __init__(self, split: ToySplit, streams: RandomStreams) -> None:
        super().__init__(len(split))
        self.split, self.streams = split, streams

    def collate(self, rows: list[int]) -> ToyBatch:
        """The pictures of these rows."""
        return self.split.batch(torch.tensor(rows), self.streams.at(0, rows))


@register("toyworld-datamodule", kind="data")
class ToyworldDataModule(BaseDataModule):
    """Random pictures in training; in evaluation every toy from a few random sides."""

    Config = ToyworldConfig  # type: ignore[assignment]

    @cached_property
    def train_split(self) -> ToySplit:
        """The training pictures, rendered at first use."""
        return ToySplit(self._pictures(self.cfg.views_per_toy, self.cfg.render_seed), self.cfg.front_weight)

    @cached_property
    def eval_split(self) -> ToySplit:
        """The evaluation pictures, rendered at first use."""
        return ToySplit(self._pictures(self.cfg.eval_views_per_toy, self.cfg.render_seed + 1))

    def train_dataloader(self) -> DataLoader[ToyBatch]:
        """Endless batches from the optimiser step that the trainer is at."""
        return self.training_loader(ToyStream(self.train_split, self.cfg.batch_size, self.batch_source()))

    def val_dataloader(self) -> DataLoader[ToyBatch]:
        """The evaluation pictures in order."""
        rows = ToyRows(self.eval_split, self.streams)
        return self.evaluation_loader(  # type: ignore[return-value]
            rows, self.cfg.eval_batch_size, collate_fn=rows.collate
        )

    def _pictures(self, views: int, seed: int) -> ToyPictures:
        folder = Path(self.cfg.cache_dir) if self.cfg.cache_dir else cache_dir("toyworld")
        return cached_pictures(folder, views, seed, self.cfg.image_size)

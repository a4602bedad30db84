"""The same cameras at every step: for pictures that are optimised as pictures, each from one view."""

from dataclasses import dataclass, field
from itertools import islice

import torch
from torch.utils.data import DataLoader, Dataset

from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom
from maquette.core.registry import register
from maquette.data.base import BaseDataModule
from maquette.data.loading import BatchSource, KeyedStream, LoaderConfig, cycle
from maquette.ops.camera_batch import CameraBatch
from maquette.ops.orbit import orbit_cameras


@dataclass(kw_only=True)
class FixedViewsConfig(LoaderConfig):
    """Options of `fixed-views-datamodule`; angles in degrees, lengths in world units.

    A list holds the views, which the pictures of a batch take in turns; a list of one holds for all.
    """

    batch_size: int = 1
    """Pictures a step."""
    azimuth_deg: list[float] = field(default_factory=lambda: [0.0])
    """Of each view; 0 is the front."""
    elevation_deg: list[float] = field(default_factory=lambda: [15.0])
    """Of each view."""
    camera_distance: list[float] = field(default_factory=lambda: [1.5])
    """Of each view, from the origin."""
    fovy_deg: list[float] = field(default_factory=lambda: [40.0])
    """Vertical field of view of each view."""
    height: int = 64
    """Rows of the pictures that the cameras would take."""
    width: int = 64
    """Columns of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch_size", "height", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"data.{name}", getattr(self, name), "an integer above 0")
        for name, values in self.lists().items():
            if not values:
                raise ConfigError(f"data.{name}", values, "a list of one view at least")
        if min(self.camera_distance) <= 0:
            raise ConfigError("data.camera_distance", list(self.camera_distance), "lengths above 0")
        if not all(0 < angle < 180 for angle in self.fovy_deg):
            raise ConfigError("data.fovy_deg", list(self.fovy_deg), "degrees between 0 and 180")

    def lists(self) -> dict[str, list[float]]:
        """What makes up a view."""
        names = ("azimuth_deg", "elevation_deg", "camera_distance", "fovy_deg")
        return {name: list(getattr(self, name)) for name in names}


def fixed_cameras(cfg: FixedViewsConfig, step: int = 0, rng: StepRandom | None = None) -> CameraBatch:
    """A camera for each picture of a batch, looking at the origin."""
    azimuth, elevation, distance, fovy = (
        torch.tensor(list(islice(cycle(one), cfg.batch_size))) for one in cfg.lists().values()
    )
    return orbit_cameras(
        elevation,
        azimuth,
        distance,
        fovy,
        cfg.height,
        cfg.width,
        index=torch.arange(cfg.batch_size) if rng is None else torch.tensor(rng.index),
        rng=rng,
        step=step,
    )


class FixedViewsStream(KeyedStream[CameraBatch]):
    """Endless batches of the same cameras; the random draws are those of the step and of the picture."""

    def __init__(self, cfg: FixedViewsConfig, source: BatchSource) -> None:
        super().__init__(source)
        self.cfg = cfg

    def batch(self, step: int, part: int = 0) -> CameraBatch:
        """Batch ``part`` of those that make the optimiser step ``step``."""
        return fixed_cameras(self.cfg, step, self.source.draws(step, part, self.cfg.batch_size))


class FixedViewsOnce(Dataset[CameraBatch]):
    """The cameras, once, without anything random."""

    def __init__(self, cfg: FixedViewsConfig) -> None:
        self.cfg = cfg

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> CameraBatch:
        return fixed_cameras(self.cfg)


@register("fixed-views-datamodule", kind="data")
class FixedViewsDataModule(BaseDataModule):
    """The same cameras in training and evaluation."""

    Config = FixedViewsConfig  # type: ignore[assignment]

    def train_dataloader(self) -> DataLoader[CameraBatch]:
        """Endless batches from the optimiser step that the trainer is at."""
        return self.training_loader(FixedViewsStream(self.options(), self.batch_source()))

    def val_dataloader(self) -> DataLoader[CameraBatch]:
        """The cameras once."""
        return DataLoader(FixedViewsOnce(self.options()), batch_size=None)

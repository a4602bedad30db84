"""The same cameras at every step: for pictures that are optimised as pictures, each from one view."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, Dataset

from maquette.core.errors import ConfigError
from maquette.core.random import RandomStreams, StepRandom
from maquette.core.registry import register
from maquette.data.base import BaseDataModule, Place
from maquette.data.loading import KeyedStream, LoaderConfig
from maquette.ops.camera_batch import CameraBatch, make_camera_batch
from maquette.ops.cameras import look_at, orbit_to_position


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
        if not all(self.lists().values()):
            raise ConfigError("data.azimuth_deg", list(self.azimuth_deg), "a list of one view at least")
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
        torch.tensor([one[i % len(one)] for i in range(cfg.batch_size)]) for one in cfg.lists().values()
    )
    position = orbit_to_position(elevation, azimuth, distance)
    up = torch.tensor([0.0, 0.0, 1.0]).expand_as(position)
    return make_camera_batch(
        look_at(position, torch.zeros_like(position), up),
        torch.deg2rad(fovy),
        cfg.height,
        cfg.width,
        light_positions=position,
        elevation=elevation,
        azimuth=azimuth,
        camera_distances=distance,
        index=torch.arange(cfg.batch_size) if rng is None else torch.tensor(rng.index),
        rng=rng,
        step=step,
    )


class FixedViewsStream(KeyedStream[CameraBatch]):
    """Endless batches of the same cameras; the random draws are those of the step and of the picture.

    Args:
        cfg: the options.
        streams: the random draws of the run.
        first_step: gives the optimiser step of the first batch when an iteration starts.
        place: rank, number of ranks, batches per step.
    """

    def __init__(
        self, cfg: FixedViewsConfig, streams: RandomStreams, first_step: Callable[[], int], place: Place
    ) -> None:
        super().__init__(streams, first_step, place)
        self.cfg = cfg

    def batch(self, step: int, part: int = 0) -> CameraBatch:
        """Batch `part` of `place.accumulate` for an optimiser step."""
        samples = self.place.samples(step, part, self.cfg.batch_size)
        return fixed_cameras(self.cfg, step, self.streams.at(step, samples))


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
        stream = FixedViewsStream(self._options(), self.streams, self.global_step, self.place())
        return self.training_loader(stream)

    def val_dataloader(self) -> DataLoader[CameraBatch]:
        """The cameras once."""
        return DataLoader(FixedViewsOnce(self._options()), batch_size=None)

    def test_dataloader(self) -> DataLoader[CameraBatch]:
        """The cameras once."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[CameraBatch]:
        """The cameras once."""
        return self.val_dataloader()

    def _options(self) -> FixedViewsConfig:
        options = OmegaConf.to_object(self.cfg)
        assert isinstance(options, FixedViewsConfig)
        return options

"""Random cameras in groups that look at an object from all around, for models of several views at once."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom
from maquette.core.registry import register
from maquette.data.random_camera import (
    RandomCameraConfig,
    RandomCameraDataModule,
    RandomCameraStream,
    size_at,
    training_cameras,
)
from maquette.ops.camera_batch import CameraBatch


@dataclass(kw_only=True)
class RandomMultiviewCameraConfig(RandomCameraConfig):
    """Options of `random-multiview-camera-datamodule`; angles in degrees, lengths in world units."""

    n_view: int = 1
    """Views of an object, which stand side by side in a batch; `batch_size` counts views."""
    relative_radius: bool = True
    """Whether distances are divided by tan(fovy / 2): at 1 a picture shows one world unit above and below the
    origin, however narrow its view."""
    zoom_range: tuple[float, float] = (1.0, 1.0)
    """Factor on the field of view once the distance is chosen; below 1 an object appears larger."""
    batch_uniform_azimuth: bool = True
    """Of no effect: the views of an object always have equal parts of the azimuth range."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.batch_uniform_azimuth = True
        if self.n_view < 1:
            raise ConfigError("data.n_view", self.n_view, "an integer above 0")
        sizes = [self.batch_size] if isinstance(self.batch_size, int) else self.batch_size
        if any(size % self.n_view for size in sizes):
            wanted = f"a multiple of data.n_view={self.n_view}: it counts views, not objects"
            raise ConfigError("data.batch_size", self.batch_size, wanted)
        low, high = self.zoom_range
        if not 0.0 < low <= high or high * self.fovy_range[1] >= 180.0:
            wanted = "[low, high] with 0 < low <= high, that leave the field of view below 180 degrees"
            raise ConfigError("data.zoom_range", [low, high], wanted)

    def lens(self, rng: StepRandom) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        """Distances from the origin, which follow the field of view, and zoomed fields of view (radians)."""
        distance, fovy = super().lens(rng)
        if self.relative_radius:
            distance = distance / torch.tan(0.5 * fovy)
        return distance, fovy * rng.uniform("camera/zoom", low=self.zoom_range[0], high=self.zoom_range[1])


class RandomMultiviewCameraStream(RandomCameraStream):
    """Endless batches of whole objects.

    The views of an object share every draw (elevation, distance, field of view, noise on the camera, light),
    and have the azimuths of one random turn, evenly spaced over the range (MVDream, Shi et al. 2023, sec. 4).
    """

    cfg: RandomMultiviewCameraConfig

    def batch(self, step: int, part: int = 0) -> CameraBatch:
        """Batch ``part`` of those that make the optimiser step ``step``."""
        size, n = size_at(self.cfg.batch_size, self.cfg.resolution_milestones, step), self.cfg.n_view
        views = self.source.place.samples(step, part, size)
        objects = self.source.streams.at(step, [view // n for view in views])
        cameras = training_cameras(self.cfg, objects, torch.tensor(views) % n, n, step)
        cameras.rng, cameras.index = self.source.streams.at(step, views), torch.tensor(views)
        return cameras


@register("random-multiview-camera-datamodule", kind="data")
class RandomMultiviewCameraDataModule(RandomCameraDataModule):
    """Groups of random cameras in training, a turntable in validation, test and prediction."""

    Config = RandomMultiviewCameraConfig  # type: ignore[assignment]

    def train_dataloader(self) -> DataLoader[CameraBatch]:
        """Endless batches from the optimiser step that the trainer is at."""
        return self.training_loader(RandomMultiviewCameraStream(self.options(), self.batch_source()))

"""Random cameras around the origin for training, a turntable for evaluation."""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader

from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom
from maquette.core.registry import register
from maquette.data.base import BaseDataModule
from maquette.data.loading import BatchSource, KeyedStream, LoaderConfig, NumberedItems
from maquette.ops.camera_batch import CameraBatch, make_camera_batch
from maquette.ops.cameras import look_at, orbit_to_position
from maquette.ops.orbit import orbit_cameras
from maquette.ops.shading import spherical_light

LIGHT_STRATEGIES = ("dreamfusion", "magic3d")
RANGES = ("elevation_range", "azimuth_range", "camera_distance_range", "fovy_range", "light_distance_range")
SIZES = ("height", "width", "batch_size")
COUNTS = ("eval_height", "eval_width", "eval_batch_size", "n_val_views", "n_test_views")


@dataclass(kw_only=True)
class RandomCameraConfig(LoaderConfig):
    """Options of `random-camera-datamodule`; angles in degrees, lengths in world units."""

    height: Any = 64
    """Rows of training pictures: a number, or a list with one more entry than `resolution_milestones`."""
    width: Any = 64
    """Columns of training pictures, as `height`."""
    batch_size: Any = 1
    """Views a step on each rank, as `height`."""
    resolution_milestones: list[int] = field(default_factory=list)
    """Steps at which the next entry of `height`, `width` and `batch_size` begins."""
    eval_height: int = 512
    """Rows of evaluation pictures."""
    eval_width: int = 512
    """Columns of evaluation pictures."""
    eval_batch_size: int = 1
    """Views at once in evaluation."""
    n_val_views: int = 1
    """Views of a validation, all around."""
    n_test_views: int = 120
    """Views of a test, all around; the first and the last are the same."""
    elevation_range: tuple[float, float] = (-10.0, 90.0)
    """Elevation of training cameras."""
    azimuth_range: tuple[float, float] = (-180.0, 180.0)
    """Azimuth of training cameras."""
    camera_distance_range: tuple[float, float] = (1.0, 1.5)
    """Distance of training cameras from the origin."""
    fovy_range: tuple[float, float] = (40.0, 70.0)
    """Vertical field of view of training cameras."""
    camera_perturb: float = 0.1
    """Half the width of the uniform noise on camera positions."""
    center_perturb: float = 0.2
    """Standard deviation of the noise on the point looked at."""
    up_perturb: float = 0.02
    """Standard deviation of the noise on the up vector."""
    light_position_perturb: float = 1.0
    """Standard deviation of the noise on the light's direction (dreamfusion)."""
    light_distance_range: tuple[float, float] = (0.8, 1.5)
    """Distance of the light from the origin."""
    eval_elevation_deg: float = 15.0
    """Elevation in evaluation, and where a progressive elevation starts."""
    eval_camera_distance: float = 1.5
    """Distance in evaluation."""
    eval_fovy_deg: float = 70.0
    """Vertical field of view in evaluation."""
    light_sample_strategy: str = "dreamfusion"
    """dreamfusion: near the camera; magic3d: in a cone of 60 degrees around the camera's direction."""
    batch_uniform_azimuth: bool = True
    """Give each view of a step its own equal part of the azimuth range."""
    progressive_until: int = 0
    """Step at which elevation and azimuth have reached their full ranges."""
    rays_d_normalize: bool = True
    """Unit ray directions; off: directions with depth one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in RANGES:
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"data.{name}", [low, high], "[low, high] with low <= high")
        if self.light_sample_strategy not in LIGHT_STRATEGIES:
            raise ConfigError(
                "data.light_sample_strategy", self.light_sample_strategy, f"one of {LIGHT_STRATEGIES}"
            )
        if self.progressive_until < 0:
            raise ConfigError("data.progressive_until", self.progressive_until, "a step, or 0 for at once")
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise ConfigError(f"data.{name}", getattr(self, name), "an integer above 0")
        for name, fovy in (("fovy_range", self.fovy_range), ("eval_fovy_deg", [self.eval_fovy_deg])):
            if not all(0.0 < angle < 180.0 for angle in fovy):
                raise ConfigError(f"data.{name}", getattr(self, name), "degrees between 0 and 180")
        self._check_sizes()

    def lens(self, rng: StepRandom) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        """Distances of training cameras from the origin, and their vertical fields of view in radians."""
        distance = _between(rng, "camera/distance", self.camera_distance_range)
        return distance, torch.deg2rad(_between(rng, "camera/fovy", self.fovy_range))

    def _check_sizes(self) -> None:
        wanted = len(self.resolution_milestones) + 1
        for name in SIZES:
            value = getattr(self, name)
            entries = list(value) if isinstance(value, list | tuple) else [value]
            if len(entries) not in (1, wanted) or not all(isinstance(n, int) and n > 0 for n in entries):
                raise ConfigError(
                    f"data.{name}",
                    value,
                    f"a number above 0 or a list of {wanted} (resolution_milestones + 1)",
                )
        if sorted(self.resolution_milestones) != list(self.resolution_milestones):
            raise ConfigError(
                "data.resolution_milestones", self.resolution_milestones, "steps in growing order"
            )


def size_at(value: Any, milestones: Sequence[int], step: int) -> int:
    """The entry of a size that holds at `step`."""
    entries = [value] if isinstance(value, int) else list(value)
    return int(entries[min(bisect.bisect_right(milestones, step), len(entries) - 1)])


def progress_at(step: int, until: int) -> float:
    """How far the progressive ranges have opened, above 0 and at most 1."""
    return min(1.0, (step + 1) / (until + 1))


def training_cameras(
    cfg: RandomCameraConfig, rng: StepRandom, stratum: Int[Tensor, "B"], strata: int, step: int
) -> CameraBatch:
    """The cameras of some samples of a step, each a function of its own random row and stratum only.

    Args:
        cfg: the options.
        rng: a row for each camera.
        stratum: which part of the azimuth range each camera gets, if `batch_uniform_azimuth`.
        strata: number of parts.
        step: optimiser step.
    """
    elevation, azimuth = _orbit_angles(cfg, rng, stratum, strata, progress_at(step, cfg.progressive_until))
    distance, fovy = cfg.lens(rng)
    perturb = cfg.camera_perturb
    position = orbit_to_position(elevation, azimuth, distance)
    position = position + rng.uniform("camera/perturb", 3, low=-perturb, high=perturb)
    center = rng.normal("camera/center", 3) * cfg.center_perturb
    up = torch.tensor([0.0, 0.0, 1.0]) + rng.normal("camera/up", 3) * cfg.up_perturb
    return make_camera_batch(
        look_at(position, center, up),
        fovy,
        size_at(cfg.height, cfg.resolution_milestones, step),
        size_at(cfg.width, cfg.resolution_milestones, step),
        light_positions=_lights(cfg, rng, position),
        elevation=elevation,
        azimuth=azimuth,
        camera_distances=distance,
        index=torch.tensor(rng.index),
        rng=rng,
        step=step,
        normalize_rays=cfg.rays_d_normalize,
    )


def turntable(cfg: RandomCameraConfig, index: Int[Tensor, "B"], views: int, closed: bool) -> CameraBatch:
    """Views `index` of `views` around the origin, lit from the camera; if `closed`, first equals last."""
    steps = max(views - 1, 1) if closed else views
    azimuth = index.float() * (360.0 / steps)
    return orbit_cameras(
        torch.full_like(azimuth, cfg.eval_elevation_deg),
        azimuth,
        torch.full_like(azimuth, cfg.eval_camera_distance),
        torch.full_like(azimuth, cfg.eval_fovy_deg),
        cfg.eval_height,
        cfg.eval_width,
        index=index,
        normalize_rays=cfg.rays_d_normalize,
    )


class RandomCameraStream(KeyedStream[CameraBatch]):
    """Endless batches; number n is a function of the config, the seed, the step it is for and its place."""

    def __init__(self, cfg: RandomCameraConfig, source: BatchSource) -> None:
        super().__init__(source)
        self.cfg = cfg

    def batch(self, step: int, part: int = 0) -> CameraBatch:
        """Batch ``part`` of those that make the optimiser step ``step``."""
        size, place = size_at(self.cfg.batch_size, self.cfg.resolution_milestones, step), self.source.place
        stratum = torch.tensor(place.slots(part, size))
        return training_cameras(
            self.cfg, self.source.draws(step, part, size), stratum, place.together(size), step
        )


class Turntable(NumberedItems):
    """The views of an evaluation."""

    def __init__(self, cfg: RandomCameraConfig, views: int, closed: bool, step: Callable[[], int]) -> None:
        super().__init__(views)
        self.cfg, self.closed, self.step = cfg, closed, step

    def collate(self, index: Sequence[int]) -> CameraBatch:
        """The cameras of some views."""
        batch = turntable(self.cfg, torch.tensor(index), len(self), self.closed)
        batch.step = self.step()
        return batch


@register("random-camera-datamodule", kind="data")
class RandomCameraDataModule(BaseDataModule):
    """Random cameras in training, a turntable in validation, test and prediction."""

    Config = RandomCameraConfig  # type: ignore[assignment]

    def train_dataloader(self) -> DataLoader[CameraBatch]:
        """Endless batches from the optimiser step that the trainer is at."""
        return self.training_loader(RandomCameraStream(self.options(), self.batch_source()))

    def val_dataloader(self) -> DataLoader[CameraBatch]:
        """`n_val_views` views around the origin."""
        return self._turntable(self.cfg.n_val_views, closed=False)

    def test_dataloader(self) -> DataLoader[CameraBatch]:
        """`n_test_views` views around the origin, closed."""
        return self._turntable(self.cfg.n_test_views, closed=True)

    def _turntable(self, views: int, closed: bool) -> DataLoader[CameraBatch]:
        dataset = Turntable(self.options(), views, closed, self.global_step)
        return self.evaluation_loader(  # type: ignore[return-value]
            dataset, self.cfg.eval_batch_size, collate_fn=dataset.collate
        )


def _between(rng: StepRandom, name: str, limits: tuple[float, float]) -> Float[Tensor, "B"]:
    return rng.uniform(name, low=limits[0], high=limits[1])


def _orbit_angles(
    cfg: RandomCameraConfig, rng: StepRandom, stratum: Tensor, strata: int, opened: float
) -> tuple[Tensor, Tensor]:
    """Elevation (half of the cameras uniform in angle, half uniform over the sphere) and azimuth, degrees."""
    start = cfg.eval_elevation_deg
    low, high = (start + (end - start) * opened for end in cfg.elevation_range)
    share = rng.uniform("camera/elevation")
    sines = torch.sin(torch.deg2rad(torch.tensor([low, high])))
    by_area = torch.rad2deg(torch.asin((sines[0] + (sines[1] - sines[0]) * share).clamp(-1.0, 1.0)))
    by_angle = low + (high - low) * share
    elevation = torch.where(rng.uniform("camera/elevation_coin") < 0.5, by_angle, by_area)
    turn = rng.uniform("camera/azimuth")
    if cfg.batch_uniform_azimuth:
        turn = (turn + stratum) / strata
    left, right = (end * opened for end in cfg.azimuth_range)
    return elevation, left + (right - left) * turn


def _lights(cfg: RandomCameraConfig, rng: StepRandom, position: Tensor) -> Float[Tensor, "B 3"]:
    distance = _between(rng, "light/distance", cfg.light_distance_range)
    if cfg.light_sample_strategy == "dreamfusion":
        noisy = position + rng.normal("light/perturb", 3) * cfg.light_position_perturb
        return torch.nn.functional.normalize(noisy, dim=-1) * distance[:, None]
    azimuth = rng.uniform("light/azimuth", low=-torch.pi, high=torch.pi)
    elevation = rng.uniform("light/elevation", low=torch.pi / 6, high=torch.pi / 2)
    return spherical_light(position, elevation, azimuth, distance)

"""A folder of a few pictures with captions, as training data."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from maquette.core.errors import ConfigError, MissingFileError, UserError
from maquette.core.output import MappingOutput
from maquette.core.random import RandomStreams, StepRandom
from maquette.core.registry import register
from maquette.data.base import BaseDataModule
from maquette.data.loading import BatchSource, KeyedStream, LoaderConfig, NumberedItems
from maquette.data.picture_captions import captions_of
from maquette.data.toyworld.album import toy_pictures
from maquette.io.images import read_image

SUFFIXES = (".png", ".jpg", ".jpeg")
TOY = "toyworld:"
"""Before "COLOR KIND", in place of a folder: renders of that toy."""
GREY = (0.3, 1.0)
"""Greys that are put behind transparent pictures."""


@dataclass(kw_only=True)
class PictureFolderConfig(LoaderConfig):
    """Options of `picture-folder-datamodule`."""

    images: str
    """Folder of PNG and JPEG pictures; "toyworld:COLOR KIND" is eight renders of a toy."""
    prompt: str
    """Caption of the pictures that have none of their own."""
    view_words: bool = False
    """Whether words such as front, left and high in a file's name become words of its caption."""
    image_size: int | None = None
    """Rows and columns; by default what the model was made for."""
    flip: bool = False
    """Whether pictures are mirrored at random: only for things that look the same in a mirror."""
    min_crop: float = 1.0
    """Smallest share of a side that a random crop keeps; 1 crops nothing."""
    batch_size: int = 4
    """Pictures of a training batch on each rank."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prompt.strip():
            raise ConfigError("data.prompt", self.prompt, 'a caption such as "a photo of <new1> mug"')
        if self.image_size is not None and self.image_size < 8:
            raise ConfigError("data.image_size", self.image_size, "at least 8, or null")
        if not 0.1 <= self.min_crop <= 1.0:
            raise ConfigError("data.min_crop", self.min_crop, "a number from 0.1 to 1")
        if self.batch_size < 1:
            raise ConfigError("data.batch_size", self.batch_size, "an integer >= 1")


@dataclass
class PictureBatch(MappingOutput):
    """Some pictures with their captions."""

    images: Float[Tensor, "B 3 S S"]
    """In [0, 1]."""
    captions: list[str]
    """One for each."""
    rng: StepRandom
    """The draws of the step."""


@dataclass(frozen=True)
class PictureSet:
    """N square pictures with captions."""

    images: Float[Tensor, "N 4 S S"]
    """Colour and opacity in [0, 1]."""
    captions: list[str]
    """One for each."""

    def __len__(self) -> int:
        return len(self.captions)

    def batch(
        self, rows: Int[Tensor, "B"], images: Float[Tensor, "B 3 S S"], rng: StepRandom
    ) -> PictureBatch:
        """Some of them, with what was made of their pictures."""
        return PictureBatch(images, [self.captions[row] for row in rows.tolist()], rng)

    def plain(self) -> Float[Tensor, "N 3 S S"]:
        """All pictures in front of white."""
        return over(self.images, torch.ones(len(self), 1, 1, 1))


class PictureStream(KeyedStream[PictureBatch]):
    """Endless batches; every picture comes once before any comes again. Seed, step and place decide."""

    def __init__(self, pictures: PictureSet, cfg: Any, source: BatchSource) -> None:
        super().__init__(source)
        self.pictures, self.cfg = pictures, cfg

    def batch(self, step: int, part: int = 0) -> PictureBatch:
        """Batch ``part`` of those that make the optimiser step ``step``."""
        slots = torch.tensor(self.source.place.samples(step, part, self.cfg.batch_size))
        rng = self.source.streams.at(step, slots)
        rows = self._rows(slots)
        images = self.pictures.images[rows]
        grey = rng.uniform("pictures/background", 1, 1, 1, low=GREY[0], high=GREY[1])
        images = cropped(over(images, grey), self.cfg.min_crop, rng)
        if self.cfg.flip:
            mirrored = rng.uniform("pictures/flip", 1, 1, 1) < 0.5
            images = torch.where(mirrored, images.flip(-1), images)
        return self.pictures.batch(rows, images, rng)

    def _rows(self, slots: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """The pictures at these places of an endless row of shuffled rounds."""
        count = len(self.pictures)
        rounds = {one: self._order(one) for one in set((slots // count).tolist())}
        return torch.tensor([int(rounds[slot // count][slot % count]) for slot in slots.tolist()])

    def _order(self, number: int) -> Int[Tensor, "N"]:
        draws = self.source.streams.at(number, range(len(self.pictures)))
        return draws.uniform("pictures/order").argsort()


class PictureRows(NumberedItems):
    """The rows of a set."""

    def __init__(self, pictures: PictureSet, streams: RandomStreams) -> None:
        super().__init__(len(pictures))
        self.pictures, self.streams = pictures, streams

    def collate(self, rows: list[int]) -> PictureBatch:
        """The pictures of these rows, as they are."""
        index = torch.tensor(rows)
        return self.pictures.batch(index, self.pictures.plain()[index], self.streams.at(0, rows))


@register("picture-folder-datamodule", kind="data")
class PictureFolderDataModule(BaseDataModule):
    """The pictures in random order and variation in training; in evaluation all of them in one batch."""

    Config = PictureFolderConfig  # type: ignore[assignment]

    @cached_property
    def pictures(self) -> PictureSet:
        """All pictures, read at first use."""
        size = self.cfg.image_size or int(getattr(self._system(), "image_size", 512))
        if self.cfg.images.startswith(TOY):
            return _toy(self.cfg.images.removeprefix(TOY), self.cfg.prompt, size)
        paths = picture_paths(self.cfg.images)
        images = torch.stack([squared(read_image(path), size) for path in paths])
        return PictureSet(images, captions_of(paths, self.cfg.prompt, self.cfg.view_words))

    def setup(self, stage: str | None = None) -> None:
        """Read the pictures before anything else is done."""
        assert len(self.pictures) > 0

    def train_dataloader(self) -> DataLoader[PictureBatch]:
        """Endless batches from the optimiser step that the trainer is at."""
        return self.training_loader(PictureStream(self.pictures, self.cfg, self.batch_source()))

    def val_dataloader(self) -> DataLoader[PictureBatch]:
        """All pictures in order."""
        rows = PictureRows(self.pictures, self.streams)
        return DataLoader(rows, batch_size=len(rows), collate_fn=rows.collate)  # type: ignore[arg-type]

    def _system(self) -> Any:
        return getattr(self.trainer, "lightning_module", None)


def picture_paths(folder: str | Path) -> list[Path]:
    """The pictures of a folder by name.

    Raises:
        MissingFileError: there is no such folder.
        UserError: it holds no picture.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise MissingFileError(folder, "folder of pictures")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"The folder {folder} holds no pictures.", hint="PNG and JPEG files work")
    return paths


def squared(image: Float[Tensor, "H W C"], size: int) -> Float[Tensor, "4 size size"]:
    """The middle of a picture in the given size, with its opacity (1 if it has none)."""
    if image.shape[-1] == 1:
        image = image.expand(-1, -1, 3)
    if image.shape[-1] == 3:
        image = torch.cat([image, torch.ones_like(image[..., :1])], dim=-1)
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    middle = image[top : top + side, left : left + side].permute(2, 0, 1)[None]
    if side == size:
        return middle[0].contiguous()
    middle = torch.cat([middle[:, :3] * middle[:, 3:], middle[:, 3:]], dim=1)  # what is hidden must not bleed
    small = F.interpolate(middle, (size, size), mode="bicubic", antialias=True)[0].clamp(0, 1)
    opacity = small[3:]
    return torch.cat([(small[:3] / opacity.clamp_min(1e-4)).clamp(0, 1), opacity])


def over(images: Float[Tensor, "N 4 S S"], grey: Float[Tensor, "N 1 1 1"]) -> Float[Tensor, "N 3 S S"]:
    """Pictures in front of greys."""
    return torch.lerp(grey.expand_as(images[:, :3]), images[:, :3], images[:, 3:])


def cropped(images: Float[Tensor, "B 3 S S"], least: float, rng: StepRandom) -> Float[Tensor, "B 3 S S"]:
    """A random square of each picture, of a share of its side from `least` to 1, in the old size."""
    if least >= 1.0:
        return images
    size = images.shape[-1]
    sides = (rng.uniform("pictures/crop", low=least) * size).round().long().clamp(1, size)
    places = rng.uniform("pictures/place", 2)
    corners = (places * (size - sides + 1)[:, None]).long()
    parts: Sequence[Tensor] = [
        F.interpolate(
            one[None, :, top : top + side, left : left + side], (size, size), mode="bilinear", antialias=True
        )
        for one, side, (top, left) in zip(images, sides.tolist(), corners.tolist(), strict=True)
    ]
    return torch.cat(list(parts))


def _toy(name: str, prompt: str, size: int) -> PictureSet:
    color, _, kind = name.strip().partition(" ")
    images, captions = toy_pictures(kind, color, prompt, size=size)
    opaque = torch.ones_like(images[:, :1])
    return PictureSet(torch.cat([images, opaque], dim=1), captions)

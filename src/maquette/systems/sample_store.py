"""Pictures that a model makes once for a run, kept in its folder; only missing ones are made again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.collectives import by_leader
from maquette.core.log import get_logger
from maquette.core.paths import atomic_path
from maquette.diffusion.sampling import sample_images
from maquette.io.images import read_image, write_image

log = get_logger(__name__)

BATCH: Final = 8
"""Pictures that are made at once."""


class SampleStore:
    """Pictures of prompts in a folder, with the table of prompts that image data sets have.

    Args:
        folder: made when it is filled.
        prompts: one for each picture.
        seed: picture i depends on the seed, i and its own prompt only.
        steps: denoising steps.
        scale: guidance scale.
    """

    def __init__(self, folder: Path, prompts: Sequence[str], seed: int, steps: int, scale: float) -> None:
        self.folder = folder
        self.prompts = list(prompts)
        self.seed, self.steps, self.scale = seed, steps, scale

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def complete(self) -> bool:
        """Whether every picture is there."""
        return self._first_missing() == len(self)

    def fill(self, load: Callable[[], Any]) -> None:
        """Make the pictures that are missing, with the pipeline that `load` gives; of several processes the
        leading one does."""
        by_leader(lambda: self._fill(load))

    def sample(self, pipeline: Any, start: int = 0, stop: int | None = None) -> Float[Tensor, "N 3 H W"]:
        """What a pipeline makes of the prompts from one number to another; nothing is kept."""
        part = self.prompts[start:stop]
        return sample_images(pipeline, part, self.seed, self.steps, self.scale, BATCH, first=start).cpu()

    def read(self) -> Float[Tensor, "N 3 H W"]:
        """The pictures, in [0, 1]."""
        return torch.stack([read_image(self._path(number)).permute(2, 0, 1) for number in range(len(self))])

    def _fill(self, load: Callable[[], Any]) -> None:
        first = self._first_missing()
        if first == len(self):
            return
        pipeline = load()
        log.info("making %d pictures in %s", len(self) - first, self.folder)
        self._write_table()
        for start in range(first, len(self), BATCH):
            images = self.sample(pipeline, start, start + BATCH)
            for number, image in enumerate(images, start=start):
                write_image(self._path(number), image.permute(1, 2, 0))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:04d}.png"

    def _table(self) -> str:
        """Everything that the pictures depend on but the model."""
        rows = [
            {"file_name": self._path(number).name, "text": prompt, "seed": self.seed}
            | {"steps": self.steps, "scale": self.scale}
            for number, prompt in enumerate(self.prompts)
        ]
        return "".join(json.dumps(row) + "\n" for row in rows)

    def _first_missing(self) -> int:
        path = self.folder / "metadata.jsonl"
        if not path.is_file() or path.read_text(encoding="utf-8") != self._table():
            return 0
        return next((n for n in range(len(self)) if not self._path(n).is_file()), len(self))

    def _write_table(self) -> None:
        if self._first_missing() == 0:
            for path in self.folder.glob("*.png"):
                path.unlink()
        with atomic_path(self.folder / "metadata.jsonl") as temporary:
            temporary.write_text(self._table(), encoding="utf-8")

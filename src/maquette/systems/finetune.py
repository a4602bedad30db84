"""Teaches a diffusion model a thing from a few pictures of it."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from maquette.core.device import current_device
from maquette.core.errors import ConfigError, UserError
from maquette.core.random import StepRandom
from maquette.diffusion.finetuning import METHODS, FineTuner, Plan
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.lora import RANK, TARGETS
from maquette.diffusion.new_words import placeholders
from maquette.diffusion.prior_losses import timesteps_at
from maquette.systems.prior_vae import move_to_top
from maquette.systems.sample_store import SampleStore
from maquette.training.base_system import BaseSystem

SHEET = "samples.png"
CELL = 128
"""Pixels a side of each picture on a sheet, at least."""


class FineTune(BaseSystem):
    """Denoising on a few pictures, and on those of a class that the model itself made (prior preservation).

    An adapter is left as `pytorch_lora_weights.safetensors` with `learned_embeds.safetensors` for new words;
    DreamBooth (Ruiz et al. 2023) leaves a folder `pipeline`.
    """

    loss_names = ("denoising", "prior")

    @dataclass(kw_only=True)
    class Config(BaseSystem.Config):
        """Options of `finetune-system`."""

        pretrained_model_name_or_path: str = "maquette/toyworld"
        """The model that learns, of the Stable Diffusion 1 or 2 family: a name as for `--prior`."""
        method: str = "lora"
        """lora: an adapter trains; dreambooth: every weight of the UNet trains."""
        rank: int = RANK
        """Of the adapter."""
        target_modules: list[str] = field(default_factory=lambda: list(TARGETS))
        """Layers of the UNet that the adapter changes, by the ends of their names."""
        train_text_encoder: bool = False
        """Whether the text encoder trains in the same way."""
        new_words: dict[str, str] = field(default_factory=dict)
        """New words such as <new1>, each with known ones whose embedding it starts as; they always train."""
        class_prompts: list[str] = field(default_factory=list)
        """Captions of pictures that the model makes before it learns, and must go on to make: prior
        preservation. None without captions."""
        class_pictures: int = 64
        """How many of them; the captions take turns."""
        timestep_exponent: float = 1.0
        """Below 1 more of the timesteps have much noise; 1 is uniform."""
        sample_prompts: list[str] = field(default_factory=list)
        """Captions of the pictures on sheets; those of the training pictures by default."""
        sample_count: int = 8
        """Most pictures in a row of a sheet."""
        sample_steps: int = 25
        """Denoising steps of the pictures on sheets, and of those of the class."""
        sample_scale: float = 5.0
        """Guidance scale of these pictures."""
        gradient_checkpointing: bool = False
        """Whether activations of the UNet are computed twice: less memory, slower."""
        half_precision_files: bool = True
        """Whether what was learned is written in float16, as models are passed on."""

        def __post_init__(self) -> None:
            if self.method not in METHODS:
                raise ConfigError("system.method", self.method, f"one of {', '.join(METHODS)}")
            for name in ("rank", "class_pictures", "sample_count", "sample_steps"):
                if getattr(self, name) < 1:
                    raise ConfigError(f"system.{name}", getattr(self, name), "an integer above 0")
            if self.timestep_exponent <= 0:
                raise ConfigError("system.timestep_exponent", self.timestep_exponent, "a number above 0")
            strange = [word for word in self.new_words if placeholders([word]) != [word]]
            if strange:
                raise ConfigError("system.new_words", strange[0], "words in angle brackets, such as <new1>")

    cfg: Config

    def configure(self) -> None:
        """Load the model and decide what of it trains."""
        plan = Plan(
            method=self.cfg.method,
            rank=self.cfg.rank,
            targets=tuple(self.cfg.target_modules),
            text_encoder=self.cfg.train_text_encoder,
            words=dict(self.cfg.new_words),
        )
        name: str = self.cfg.pretrained_model_name_or_path
        self.tuner = FineTuner.load(name, plan, current_device(), self.streams.seed)
        if self.cfg.gradient_checkpointing:
            self.tuner.pipeline.unet.enable_gradient_checkpointing()
        self._class_images: Tensor | None = None
        self._class_captions: list[str] = []

    @property
    def image_size(self) -> int:
        """Rows and columns of the model's pictures."""
        return self.tuner.denoiser.image_size

    def on_fit_start(self) -> None:
        """Check the captions; have the untouched model make the pictures of the class and of the sheets."""
        self._check_words(self.trainer.datamodule.pictures.captions)
        stores = [self._before(), self._class()]
        untouched = cache(self._untouched)
        for store in stores:
            store.fill(untouched)
        if self.cfg.class_prompts:
            self._class_images, self._class_captions = stores[1].read(), stores[1].prompts

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """The pictures, and as many of the class where there are any, in one call of the UNet."""
        images, captions, rng = self._sized(batch.images), list(batch.captions), batch.rng
        noise, t = self._noise("finetune", rng)
        if self._class_images is not None:
            rows = rng.integers("finetune/class", 0, len(self._class_images) - 1)
            images = torch.cat([images, self._class_images[rows].to(images)])
            captions += [self._class_captions[row] for row in rows.tolist()]
            more = self._noise("finetune/class", rng)
            noise, t = torch.cat([noise, more[0]]), torch.cat([t, more[1]])
        errors = self.tuner.loss(images, captions, noise, t)
        self.set_loss("denoising", errors[: len(batch.images)].mean())
        if self._class_images is not None:
            self.set_loss("prior", errors[len(batch.images) :].mean())
        return {"loss": self.total_loss()}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """A sheet: the training pictures, and what the model makes of the captions, before and now."""
        if batch_idx == 0:
            self._sheet(batch, f"it{self.true_global_step}-{SHEET}")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """As in validation; the sheet at the top of the run."""
        if batch_idx == 0:
            self._sheet(batch, SHEET)

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        """Write what was learned, once."""
        if batch_idx == 0:
            folder = self.get_save_path("learned/weights").parent
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            self.tuner.save(folder, torch.float16 if self.cfg.half_precision_files else torch.float32)

    def finish(self, folder: Path) -> list[Path]:
        """What was learned, and the last sheet, at the top of the run."""
        learned = self.get_save_path("learned")
        files: list[Path] = []
        for path in sorted(learned.iterdir()):
            if path.is_dir():
                files += move_to_top(path, folder)
            else:
                files.append(path.replace(folder / path.name))
        learned.rmdir()
        sheet = self.get_save_path(SHEET)
        return [*files, Path(shutil.copyfile(sheet, folder / SHEET))] if sheet.exists() else files

    def _sized(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 S S"]:
        size = self.image_size
        images = images.to(self.device)
        if images.shape[-2:] == (size, size):
            return images
        return F.interpolate(images, (size, size), mode="bilinear", antialias=True)

    def _noise(self, name: str, rng: StepRandom) -> tuple[Float[Tensor, "B C h w"], Int[Tensor, "B"]]:
        denoiser = self.tuner.denoiser
        side = denoiser.latent_size
        noise = rng.normal(f"{name}/noise", denoiser.latent_channels, side, side)
        together = self.trainer.datamodule.place().together(rng.batch_size)
        place = rng.spread(f"{name}/timestep", together)
        t = timesteps_at(place, denoiser.num_train_timesteps, self.cfg.timestep_exponent)
        return noise.to(self.device), t.to(self.device)

    def _check_words(self, captions: Sequence[str]) -> None:
        used, words = placeholders(captions), list(self.cfg.new_words)
        unknown = [word for word in used if word not in words]
        unused = [word for word in words if word not in used]
        if unknown or unused:
            what = "has no beginning" if unknown else "is in no caption"
            raise UserError(
                f"The new word {(unknown or unused)[0]} {what}.",
                hint='system.new_words={"<new1>": "mug"}: each new word of the captions, and a known one',
            )

    def _sheet(self, batch: Any, name: str) -> None:
        """Rows: the training pictures, and what the model makes of captions, before it learned and now."""
        prompts, before = self._sample_prompts(), self._before()
        now = self._store("now", prompts).sample(self.tuner.pipeline)
        rows = [self._sized(batch.images)[: len(prompts)], *([before.read()] if before.complete else []), now]
        cells = [[_cell(image) for image in row] for row in rows]
        size = max(self.image_size, CELL)
        self.save_image_grid(name, cells, align=size, name="samples", step=self.true_global_step)

    def _before(self) -> SampleStore:
        """What the untouched model makes of the captions; a new word stands for what it begins with."""
        return self._store("before", [self._known(prompt) for prompt in self._sample_prompts()])

    def _class(self) -> SampleStore:
        """Pictures of the class prompts, in the words of the views of the training pictures in turn."""
        prompts = list(self.cfg.class_prompts)
        views = self._views() or [""]
        rows = range(self.cfg.class_pictures if prompts else 0)
        texts = [prompts[n % len(prompts)] + views[n // len(prompts) % len(views)] for n in rows]
        return self._store("class", texts)

    def _views(self) -> list[str]:
        """What follows the prompt in captions: ", front view, level"."""
        data = self.trainer.datamodule
        prompt = data.cfg.prompt
        return [one.removeprefix(prompt) for one in data.pictures.captions if one.startswith(prompt)]

    def _store(self, name: str, prompts: Sequence[str]) -> SampleStore:
        seed = self.streams.seed + (name == "class")
        folder = self.get_save_dir() / name
        return SampleStore(folder, prompts, seed, self.cfg.sample_steps, self.cfg.sample_scale)

    def _untouched(self) -> Any:
        """The pipeline as it was: an adapter that is fresh changes nothing, one that was resumed does."""
        if not self.resumed:
            return self.tuner.pipeline
        return load_pipeline(self.cfg.pretrained_model_name_or_path).to(self.device)

    def _sample_prompts(self) -> list[str]:
        captions = self.trainer.datamodule.pictures.captions
        return (list(self.cfg.sample_prompts) or list(dict.fromkeys(captions)))[: self.cfg.sample_count]

    def _known(self, prompt: str) -> str:
        for word, meaning in self.cfg.new_words.items():
            prompt = prompt.replace(word, meaning)
        return prompt


def _cell(image: Tensor) -> dict[str, Any]:
    return {"type": "rgb", "img": image, "kwargs": {"data_format": "CHW"}}

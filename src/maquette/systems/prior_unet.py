"""Trains the denoiser and the text encoder of the embedded prior."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.data.toyworld.captions import caption, varied_caption, words
from maquette.data.toyworld.dataset import COLOR_NAMES, KIND_NAMES
from maquette.diffusion.embedded import (
    Autoencoder,
    Pipeline,
    assemble,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_unet,
    build_vae,
    load_vae,
    save_half,
    tokenize,
)
from maquette.diffusion.prior_losses import encode_means, timesteps_at, velocity_loss
from maquette.diffusion.sampling import sample_images
from maquette.systems.prior_vae import move_to_top
from maquette.training.base_system import BaseSystem

SHEET_VIEWS = (0.0, 45.0, 90.0, 180.0, -90.0, -45.0)


class PriorUNet(BaseSystem):
    """Velocity prediction on the latents of toyworld; exports a folder ``prior``, a whole pipeline."""

    @dataclass(kw_only=True)
    class Config(BaseSystem.Config):
        """Options of `prior-unet-system`."""

        vae: str = ""
        """Folder of a trained autoencoder; without it an untrained one, which only tests can want."""

        timestep_exponent: float = 0.6
        """Below 1 more of the timesteps have much noise, where the view is decided; 1 is uniform."""

        sample_steps: int = 20
        """Denoising steps of the pictures on validation sheets."""

        sample_scale: float = 3.0
        """Guidance scale of those pictures."""

        sheet_rows: int = 4
        """Toys on a validation sheet."""

        def __post_init__(self) -> None:
            if self.timestep_exponent <= 0:
                raise ConfigError("system.timestep_exponent", self.timestep_exponent, "a number above 0")

    cfg: Config

    def configure(self) -> None:
        """Build tokenizer, text encoder and denoiser; the autoencoder is loaded and left alone."""
        self.tokenizer = build_tokenizer(words(list(KIND_NAMES), list(COLOR_NAMES)))
        self.text_encoder = build_text_encoder(self.tokenizer)
        self.unet = build_unet()
        self.noise_levels = build_scheduler()
        vae = load_vae(self.cfg.vae) if self.cfg.vae else build_vae().eval().requires_grad_(False)
        self._frozen = {"vae": vae}  # in a dict: no part of the weights that are trained
        self._latents: Tensor | None = None

    @property
    def vae(self) -> Autoencoder:
        """The frozen autoencoder."""
        return self._frozen["vae"].to(self.device)

    def pipeline(self) -> Pipeline:
        """The present weights as a pipeline."""
        return assemble(self.vae, self.unet, self.text_encoder, self.tokenizer)

    def on_fit_start(self) -> None:
        """Encode all training pictures once."""
        images = self.trainer.datamodule.train_split.pictures.images
        self._latents = encode_means(self.vae, images) * self.vae.config["scaling_factor"]

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One batch of latents at timesteps spread over all noise levels."""
        latents = self._latents[batch.picture].to(self.device)
        seeds = batch.rng.integers("prior/caption", 0, 2**31 - 1).tolist()
        captions = [
            varied_caption(one, random.Random(seed)) for one, seed in zip(batch.captions, seeds, strict=True)
        ]
        text = self.text_encoder(tokenize(self.tokenizer, captions).to(self.device))[0]
        noise = batch.rng.normal("prior/noise", *latents.shape[1:]).to(self.device)
        together = self.trainer.datamodule.place().together(len(latents))
        place = batch.rng.spread("prior/timestep", together).to(self.device)
        levels = self.noise_levels.config["num_train_timesteps"]
        timesteps = timesteps_at(place, levels, self.cfg.timestep_exponent)
        loss = velocity_loss(self.unet, self.noise_levels, latents, text, noise, timesteps)
        self.set_loss("velocity", loss)
        return {"loss": self.total_loss()}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """A sheet of samples: a toy a row, a side a column."""
        if batch_idx > 0:
            return
        toys = list(zip(KIND_NAMES, COLOR_NAMES * len(KIND_NAMES), strict=False))[: self.cfg.sheet_rows]
        prompts = [caption(kind, color, azimuth, 20.0) for kind, color in toys for azimuth in SHEET_VIEWS]
        images = sample_images(
            self.pipeline(), prompts, steps=self.cfg.sample_steps, guidance_scale=self.cfg.sample_scale
        )
        cells = [{"type": "rgb", "img": image, "kwargs": {"data_format": "CHW"}} for image in images]
        columns = len(SHEET_VIEWS)
        rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
        step = self.true_global_step
        self.save_image_grid(f"it{step}-samples.png", rows, name="samples", step=step)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """As in validation."""
        self.validation_step(batch, batch_idx)

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        """Write the pipeline once."""
        if batch_idx == 0:
            save_half(self.pipeline(), self.get_save_path("prior"))

    def finish(self, folder: Path) -> list[Path]:
        """The pipeline's folder at the top of the run."""
        return move_to_top(self.get_save_path("prior"), folder)

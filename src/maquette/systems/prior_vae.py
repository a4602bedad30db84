"""Trains the autoencoder of the embedded prior."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maquette.core.paths import unfinished_name
from maquette.core.processes import is_leader
from maquette.diffusion.embedded import build_vae
from maquette.diffusion.prior_losses import as_input, autoencoder_terms, prepare_autoencoder
from maquette.training.base_system import BaseSystem

SHEET = 12


class PriorVAE(BaseSystem):
    """Autoencoder of toyworld pictures; exports a folder ``vae`` that diffusers loads."""

    @dataclass(kw_only=True)
    class Config(BaseSystem.Config):
        """Options of `prior-vae-system`."""

        channels: list[int] = field(default_factory=lambda: [16, 32, 64])
        """Width at full, half and quarter resolution."""

    cfg: Config

    def configure(self) -> None:
        """Build the autoencoder."""
        self.vae = build_vae(self.cfg.channels)
        prepare_autoencoder(self.vae)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Reconstruct with one posterior sample."""
        images = as_input(batch.images)
        for name, value in autoencoder_terms(self.vae, images, self._noise(batch)).items():
            self.set_loss(name, value)
        return {"loss": self.total_loss()}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Peak signal-to-noise ratio, and pictures above their reconstructions."""
        images = as_input(batch.images)
        again = self.vae(images).sample.clamp(-1.0, 1.0)
        error = ((again - images) / 2.0).square().mean((1, 2, 3))
        self.log("val/psnr", -10.0 * torch.log10(error).mean(), batch_size=len(images))
        if batch_idx == 0 and is_leader():  # of several processes each has other pictures
            rows = [[_cell(one) for one in part[:SHEET]] for part in (images, again)]
            self.save_image_grid(
                f"it{self.true_global_step}-vae.png", rows, name="vae", step=self.true_global_step
            )

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """As in validation."""
        self.validation_step(batch, batch_idx)

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        """Write the weights once, with the scale that gives latents unit variance."""
        if batch_idx > 0:
            return
        latents = self.vae.encode(as_input(batch.images)).latent_dist.mean
        self.vae.register_to_config(scaling_factor=1.0 / latents.std().item())
        self.vae.save_pretrained(self.get_save_path("vae"))

    def finish(self, folder: Path) -> list[Path]:
        """The autoencoder's folder at the top of the run."""
        return move_to_top(self.get_save_path("vae"), folder)

    def _noise(self, batch: Any) -> Tensor:
        size = batch.images.shape[-1] // 4
        return batch.rng.normal("prior/posterior", self.vae.config["latent_channels"], size, size).to(
            self.device
        )


def move_to_top(source: Path, folder: Path) -> list[Path]:
    """Move an exported folder to the top of the run, over an older one; its weight files.

    Killed at any moment, it leaves the new folder whole, here or where it was, and no mixture of the two.
    """
    target = folder / source.name
    if target.exists():
        old = target.rename(folder / unfinished_name(target))
        source.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        source.rename(target)
    return sorted(target.rglob("*.safetensors"))


def _cell(image: Tensor) -> dict[str, Any]:
    return {"type": "rgb", "img": image / 2.0 + 0.5, "kwargs": {"data_format": "CHW"}}

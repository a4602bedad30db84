"""Guidance by the first stage of DeepFloyd IF, which denoises small pictures directly."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError, UserError
from maquette.core.registry import register
from maquette.diffusion import score
from maquette.diffusion.denoiser import load_denoiser
from maquette.diffusion.families.kinds import of_family
from maquette.diffusion.load import family
from maquette.models.guidance.base import KEY
from maquette.models.guidance.stable_diffusion import StableDiffusionGuidance


@register("deep-floyd-guidance")
class DeepFloydGuidance(StableDiffusionGuidance):
    """Distillation by any rule in pixels; "latents" are pictures of the model's size, values in [-1, 1].

    The model also predicts a variance, with three channels of its own, which distillation has no use for.
    """

    @dataclass(kw_only=True)
    class Config(StableDiffusionGuidance.Config):
        """The model and the rule."""

        pretrained_model_name_or_path: str = "DeepFloyd/IF-I-XL-v1.0"
        """A folder, or an id of the hub (gated: its licence); the same as the prompt processor's."""
        guidance_scale: float = 20.0
        """s of eps_uncond + s (eps_text - eps_uncond)."""
        enable_channels_last_format: bool = True
        """Whether the denoising network's weights are stored channels last."""

    def prepare(self, rgb: Float[Tensor, "B H W 3"], as_latents: bool) -> Float[Tensor, "B 3 h w"]:
        """Channels first, at least float32, in the model's size.

        Raises:
            UserError: latents are given, which this model does not have.
        """
        if as_latents:
            raise UserError(
                "DeepFloyd IF has no latents.",
                hint="render pictures, or use a guidance of the Stable Diffusion family",
            )
        return super().prepare(rgb, as_latents)

    def parted(
        self, x_t: Float[Tensor, "B 3 h w"], eps: Float[Tensor, "B 3 h w"], alpha_bar: Float[Tensor, "B"]
    ) -> tuple[Float[Tensor, "B 3 h w"], Float[Tensor, "B 3 h w"]]:
        """The clean picture kept between -1 and 1, and the noise that belongs to it (Saharia et al. 2022,
        section 2.3): without, large guidance scales lead out of what a picture can be."""
        x0 = score.predicted_x0(x_t, eps, alpha_bar).clamp(-1.0, 1.0)
        return x0, score.eps_from_x0(x0, x_t, alpha_bar)

    def _open(self, name: str, dtype: torch.dtype, own: bool, **switches: Any) -> Any:
        """A model of pixels."""
        name = of_family(name, "pixel")
        found = family(name)
        if found.name != "pixel":
            raise ConfigError(
                f"{KEY}.pretrained_model_name_or_path",
                name,
                f"the first stage of DeepFloyd IF; this model is of the family {found.name} ({found.what})",
            )
        if own:
            return load_denoiser(name, dtype, self.device, **switches)
        return super()._open(name, dtype, own, **switches)

"""Guidance by instructions: "make it blue" (InstructPix2Pix, Brooks et al. 2023)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.core.registry import register
from maquette.diffusion.families.instruct_pix2pix import InstructPix2PixDenoiser, two_guidances
from maquette.models.guidance.conditioned import ConditionedEncoding, ConditionedText
from maquette.models.guidance.picture_edit import PictureEditGuidance
from maquette.models.guidance.views import Views


@register("stable-diffusion-instructpix2pix-guidance")
class InstructPix2PixGuidance(PictureEditGuidance):
    """The prompt is an instruction, `cond_rgb` the picture that it is about."""

    family: ClassVar[str] = "ip2p"
    reads: ClassVar[str] = "picture"

    @dataclass(kw_only=True)
    class Config(PictureEditGuidance.Config):
        """The model; `condition_scale` is the guidance scale of the picture."""

        ip2p_name_or_path: str = "timbrooks/instruct-pix2pix"
        """The model: a folder or an id of the hub."""
        pretrained_model_name_or_path: str = ""
        """The same under its usual name, which wins where it is given."""

        def __post_init__(self) -> None:
            super().__post_init__()
            self.pretrained_model_name_or_path = self.pretrained_model_name_or_path or self.ip2p_name_or_path

    denoiser: InstructPix2PixDenoiser

    def second(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The latents of the pictures."""
        return self.denoiser.picture(images)

    def condition(self, views: Views) -> ConditionedText:
        """The instruction, and the latents of the second pictures.

        Raises:
            ConfigError: the prompt asks for Perp-Neg, which has no place between two guidance scales.
        """
        text = super().condition(views)
        if text.perp_neg:
            key = "system.prompt_processor.use_perp_neg"
            raise ConfigError(key, True, "false: an instruction has no other views to move away from")
        return text

    @torch.no_grad()
    def guided_noise(
        self,
        x_t: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        text: ConditionedText,
        scale: float | None = None,
    ) -> Float[Tensor, "B C h w"]:
        """Guidance by text and picture, each with its scale, from three predictions; no graph is kept."""
        both = text.encoding()
        plain = both[len(x_t) :]
        without = ConditionedEncoding.of(plain, torch.zeros_like(plain.condition))
        rows = ConditionedEncoding.cat([both, without])
        eps_text, eps_picture, eps_uncond = self._denoise(x_t.repeat(3, 1, 1, 1), t.repeat(3), rows).chunk(3)
        text_scale = self.scale if scale is None else scale
        guided = two_guidances(eps_uncond, eps_picture, eps_text, text_scale, self.cfg.condition_scale)
        return self._rescaled(guided, eps_text)

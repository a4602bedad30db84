"""SDS and VSD by new views of one picture, under the ecosystem's name and options."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maquette.core.registry import register
from maquette.diffusion.denoiser import load_denoiser
from maquette.diffusion.families.kinds import of_family
from maquette.diffusion.families.zero123 import Zero123Denoiser
from maquette.models.guidance.conditioned import ConditionedEncoding, check_family
from maquette.models.guidance.unified import StableDiffusionUnifiedGuidance
from maquette.models.guidance.view_text import ViewCondition
from maquette.models.guidance.views import Views
from maquette.models.guidance.zero123 import PictureView, Reference, ReferenceConfig, reference_picture


@register("zero123-unified-guidance")
class Zero123UnifiedGuidance(StableDiffusionUnifiedGuidance):
    """`stable-diffusion-unified-guidance` with Zero123: no prompt, a reference picture in its place."""

    @dataclass(kw_only=True)
    class Config(ReferenceConfig, StableDiffusionUnifiedGuidance.Config):
        """The models, the reference picture, and the camera that took it."""

        pretrained_model_name_or_path: str = "bennyguo/zero123-diffusers"
        """A folder or an id of the hub in the layout of diffusers."""
        cond_image_path: str = ""
        """The reference picture; a transparent background becomes white, as in the model's training."""
        guidance_scale: float = 5.0
        """s of eps_uncond + s (eps_picture - eps_uncond)."""
        use_img_loss: bool = False
        """Whether there is also a loss in pixels (HiFA); costs decodings each step."""

        def __post_init__(self) -> None:
            super().__post_init__()
            self.check_reference()

    def configure(self, denoiser: Any = None) -> None:
        """Read the reference picture, load the models, and let the guiding one look at the picture."""
        picture = reference_picture(self.cfg.cond_image_path)
        super().configure(denoiser)
        self.reference = Reference(picture.to(self.device), self.denoiser, self.cfg)

    def condition(self, views: Views) -> PictureView:
        """Where the cameras stand, as seen from that of the reference picture."""
        return self.reference.seen_from(views)

    def plain(self, text: ViewCondition) -> ViewCondition:
        """The model of the renderings is told the same."""
        return text

    def _beside(self, text: ConditionedEncoding) -> dict[str, Tensor]:
        return {"picture": text.condition}

    def _open(self, name: str, dtype: torch.dtype, own: bool, **switches: Any) -> Zero123Denoiser:
        """A model of its own in any case."""
        name = of_family(name, "zero123")
        check_family(name, "zero123")
        return load_denoiser(name, dtype, self.device, **switches)

"""SDS and VSD by new views of one picture, under the ecosystem's name and options."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.registry import register
from maquette.diffusion.denoiser import load_denoiser
from maquette.diffusion.families.kinds import of_family
from maquette.diffusion.families.zero123 import Zero123Denoiser
from maquette.models.guidance.conditioned import check_family
from maquette.models.guidance.unified import StableDiffusionUnifiedGuidance
from maquette.models.guidance.view_text import ViewCondition
from maquette.models.guidance.views import Views
from maquette.models.guidance.zero123 import PictureView, Reference, ReferenceConfig, reference_picture
from maquette.models.prompt_processors.base import TextEncoding


class PictureAsText(Zero123Denoiser):
    """Zero123 under the arguments of a model that reads text, as VSD knows models: the tokens are the text,
    and the picture's latents, flat, its pooled text.
    """

    @classmethod
    def of(cls, model: Zero123Denoiser) -> Self:
        """The same networks, not copied."""
        same = cls.__new__(cls)
        same.__dict__.update(model.__dict__)
        return same

    @torch.no_grad()
    def predict_noise(  # type: ignore[override]
        self,
        x_t: Float[Tensor, "N C h w"],
        t: Int[Tensor, "N"],
        text: Float[Tensor, "N L D"],
        pooled: Float[Tensor, "N P"],
    ) -> Float[Tensor, "N C h w"]:
        """The noise in noised latents of a new view; no graph is kept."""
        return self.noise_in(self.predict(x_t, t, text, pooled), x_t, t)

    def predict(  # type: ignore[override]
        self,
        x_t: Float[Tensor, "N C h w"],
        t: Int[Tensor, "N"],
        text: Float[Tensor, "N L D"],
        pooled: Float[Tensor, "N P"],
        class_labels: Float[Tensor, "N K"] | None = None,
    ) -> Float[Tensor, "N C h w"]:
        """What the UNet itself predicts; with a graph if one is wanted."""
        more = {} if class_labels is None else {"class_labels": class_labels.to(self.unet.dtype)}
        return self.ask(torch.cat([x_t, pooled.view_as(x_t).to(x_t)], dim=1), t, text, **more)


class FlatPictureView(PictureView):
    """The reference picture and cameras, for `PictureAsText`."""

    def first(self, n: int) -> "FlatPictureView":
        """That of the first n pictures."""
        return FlatPictureView(self.condition[:n], self.cameras[:n])

    def encoding(self) -> TextEncoding:  # type: ignore[override]
        """2B rows [cond; uncond]; without a picture everything is zero."""
        return _flat(super().encoding())

    def null(self) -> TextEncoding:  # type: ignore[override]
        """B rows of zeros."""
        return _flat(super().null())


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

    def configure(self, denoiser: Zero123Denoiser | None = None) -> None:
        """Read the reference picture, load the models, and let the guiding one look at the picture."""
        picture = reference_picture(self.cfg.cond_image_path)
        super().configure(self._load(own=True) if denoiser is None else PictureAsText.of(denoiser))
        self.reference = Reference(picture.to(self.device), self.denoiser, self.cfg)

    def told(self, views: Views) -> FlatPictureView:
        """Where the cameras stand, as seen from that of the reference picture."""
        seen = self.reference.seen_from(views)
        return FlatPictureView(seen.condition, seen.cameras)

    def plain(self, text: ViewCondition) -> ViewCondition:
        """The model of the renderings is told the same."""
        return text

    def _open(self, name: str, dtype: torch.dtype, own: bool, **switches: Any) -> PictureAsText:
        """A model of its own in any case."""
        name = of_family(name, "zero123")
        check_family(name, "zero123")
        return PictureAsText.of(load_denoiser(name, dtype, self.device, **switches))


def _flat(encoding: Any) -> TextEncoding:
    return TextEncoding(encoding.hidden, encoding.condition.flatten(1))

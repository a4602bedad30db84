"""Diffusion models of latents, with a UNet: the Stable Diffusion and the SDXL family."""

from __future__ import annotations

from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.errors import UserError
from maquette.diffusion.latent_space import LatentSpace
from maquette.diffusion.noise_levels import NoiseLevels


class LatentDenoiser(LatentSpace, NoiseLevels):
    """A UNet with its autoencoder and noise levels, of the Stable Diffusion or the SDXL family.

    Args:
        unet: a diffusers `UNet2DConditionModel`.
        vae: a diffusers `AutoencoderKL`.
        scheduler: gives the noise levels and what the UNet predicts; its steps are not used.

    Raises:
        UserError: the model is of another family.
    """

    reads_a_picture = False
    """Whether the UNet also reads the latents of a picture, beside the noised ones (`families.picture`)."""

    def __init__(self, unet: Any, vae: Any, scheduler: Any) -> None:
        NoiseLevels.__init__(self, scheduler)
        self._check(unet, vae)
        LatentSpace.__init__(self, vae)
        self.unet = unet.eval().requires_grad_(False)
        self.alphas_cumprod = self.alphas_cumprod.to(unet.device)
        self.latent_size: int = _side(unet.config.sample_size)
        self.image_size: int = self.latent_size * self.pixels_per_latent
        self._sizes = _time_ids(self.image_size) if _takes_sizes(unet) else None
        if self._sizes is not None and vae.dtype == torch.float16 and vae.config.force_upcast:
            self.vae.to(torch.float32)

    def to(self, device: torch.device) -> Self:
        """Move everything to a device; returns itself."""
        self.unet.to(device)
        self.vae.to(device)
        self.alphas_cumprod = self.alphas_cumprod.to(device)
        return self

    def predict(
        self,
        x_t: Float[Tensor, "N C h w"],
        t: Int[Tensor, "N"],
        text: Float[Tensor, "N L D"],
        pooled: Float[Tensor, "N P"] | None = None,
        class_labels: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
    ) -> Float[Tensor, "N C h w"]:
        """What the UNet itself predicts: noise, velocity or clean latents; with a graph if one is wanted."""
        return self.ask(x_t, t, text, pooled, **self._arguments(class_labels, cross_attention_kwargs))

    def ask(
        self,
        x_t: Float[Tensor, "N I h w"],
        t: Int[Tensor, "N"],
        text: Float[Tensor, "N L D"],
        pooled: Float[Tensor, "N P"] | None = None,
        **more: Any,
    ) -> Float[Tensor, "N C h w"]:
        """One call of the UNet, in its own precision; `more` are arguments of it."""
        dtype = self.unet.dtype
        if self._sizes is not None:
            more["added_cond_kwargs"] = self._added(pooled, len(x_t), dtype)
        return self.unet(x_t.to(dtype), t, text.to(dtype), return_dict=False, **more)[0].to(x_t.dtype)

    def _arguments(
        self, class_labels: Tensor | None, cross_attention_kwargs: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Further arguments of the UNet: those that are not None, in its precision."""
        found: dict[str, Any] = {}
        if class_labels is not None:
            found["class_labels"] = class_labels.to(self.unet.dtype)
        if cross_attention_kwargs is not None:
            found["cross_attention_kwargs"] = cross_attention_kwargs
        return found

    @classmethod
    def _check(cls, unet: Any, vae: Any) -> None:
        reads, latents = unet.config.in_channels, vae.config.latent_channels
        if reads != latents * (2 if cls.reads_a_picture else 1):
            raise UserError(
                f"The UNet reads {reads} channels, latents have {latents}.",
                hint="it should read a picture's latents beside the noised ones"
                if cls.reads_a_picture
                else "this is an inpainting or editing model; use a plain text-to-image model",
            )
        if unet.config.addition_embed_type not in (None, "text", "text_time"):
            raise UserError(
                f"A UNet that is conditioned on {unet.config.addition_embed_type!r} cannot be driven by text."
            )

    def _added(self, pooled: Tensor | None, n: int, dtype: torch.dtype) -> dict[str, Tensor]:
        if pooled is None or self._sizes is None:
            raise UserError(
                "This model needs the pooled text beside the text itself.",
                hint="give prompt processor and guidance the same pretrained_model_name_or_path",
            )
        sizes = self._sizes.to(pooled.device, dtype).expand(n, -1)
        return {"text_embeds": pooled.to(dtype), "time_ids": sizes}


def _takes_sizes(unet: Any) -> bool:
    return unet.config.addition_embed_type == "text_time"


def _time_ids(size: int) -> Float[Tensor, "1 6"]:
    """Original size, crop corner and target size, as SDXL wants them: an uncropped picture."""
    return torch.tensor([[size, size, 0, 0, size, size]], dtype=torch.float32)


def _side(sample_size: int | tuple[int, int] | list[int]) -> int:
    return sample_size if isinstance(sample_size, int) else int(sample_size[0])

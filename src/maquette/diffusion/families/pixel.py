"""Models that denoise small pictures directly, without an autoencoder: stage I of DeepFloyd IF."""

from __future__ import annotations

from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from maquette.core.errors import UserError
from maquette.diffusion.noise_levels import NoiseLevels


class PixelDenoiser(NoiseLevels):
    """A UNet over pixels, of which "latents" are the pictures themselves, with values in [-1, 1].

    A UNet with twice the channels also predicts the variance of a sampling step (Nichol and Dhariwal 2021);
    distillation has no use for it.

    Args:
        unet: a diffusers `UNet2DConditionModel` that reads three channels.
        scheduler: gives the noise levels and what the UNet predicts.

    Raises:
        UserError: the UNet is of another kind, such as an upscaler.
    """

    latent_channels = 3

    def __init__(self, unet: Any, scheduler: Any) -> None:
        super().__init__(scheduler)
        if unet.config.in_channels != 3 or unet.config.out_channels not in (3, 6):
            raise UserError(
                f"The UNet reads {unet.config.in_channels} channels and predicts {unet.config.out_channels}.",
                hint="this is an upscaler or works on latents; use a first stage, as DeepFloyd/IF-I-XL-v1.0",
            )
        self.unet = unet.eval().requires_grad_(False)
        self.alphas_cumprod = self.alphas_cumprod.to(unet.device)
        self.image_size: int = unet.config.sample_size
        self.latent_size: int = self.image_size

    def to(self, device: torch.device) -> Self:
        """Move everything to a device; returns itself."""
        self.unet.to(device)
        self.alphas_cumprod = self.alphas_cumprod.to(device)
        return self

    def encode(
        self, images: Float[Tensor, "B 3 H W"], noise: Float[Tensor, "B 3 h w"] | None = None
    ) -> Float[Tensor, "B 3 h w"]:
        """Pictures in [0, 1] at the model's size, with values in [-1, 1]; there is no posterior to sample."""
        del noise
        side = self.image_size
        if images.shape[-2:] != (side, side):
            images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return images * 2 - 1

    def decode(self, latents: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
        """Pictures, values around [0, 1] (not clamped)."""
        return latents / 2 + 0.5

    def predict(
        self,
        x_t: Float[Tensor, "N 3 h w"],
        t: Int[Tensor, "N"],
        text: Float[Tensor, "N L D"],
        pooled: Float[Tensor, "N P"] | None = None,
    ) -> Float[Tensor, "N 3 h w"]:
        """What the UNet predicts, without the variance; with a graph if one is wanted."""
        del pooled
        dtype = self.unet.dtype
        out = self.unet(x_t.to(dtype), t, text.to(dtype), return_dict=False)[0]
        return out[:, :3].to(x_t.dtype)

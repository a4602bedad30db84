"""Edits of a picture by an instruction: InstructPix2Pix (Brooks et al. 2023)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maquette.diffusion.families.picture import PictureDenoiser


class InstructPix2PixDenoiser(PictureDenoiser):
    """A UNet that reads a text, and the latents of the picture to be edited beside the noised ones."""

    @torch.no_grad()
    def picture(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Latents, without their scale, of pictures in [0, 1] that are to be edited."""
        if images.shape[-2:] != (self.image_size, self.image_size):
            images = F.interpolate(images, (self.image_size,) * 2, mode="bilinear", antialias=True)
        return self.raw_latents(images)


def two_guidances(
    eps_uncond: Float[Tensor, "B *S"],
    eps_picture: Float[Tensor, "B *S"],
    eps_text: Float[Tensor, "B *S"],
    text_scale: float,
    picture_scale: float,
) -> Float[Tensor, "B *S"]:
    """eps_u + s_i (eps_i - eps_u) + s_t (eps_t - eps_i) (eq. 3 of the paper).

    Predictions without both, with the picture alone, and with the picture and the text.
    """
    from_picture = picture_scale * (eps_picture - eps_uncond)
    return eps_uncond + from_picture + text_scale * (eps_text - eps_picture)

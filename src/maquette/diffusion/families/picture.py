"""Models whose UNet reads the latents of a picture beside the noised ones."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maquette.diffusion.latent_denoiser import LatentDenoiser


class PictureDenoiser(LatentDenoiser):
    """A UNet with twice the channels of the latents: the noised ones, and those of a picture."""

    reads_a_picture = True

    def predict(
        self,
        x_t: Float[Tensor, "N C h w"],
        t: Int[Tensor, "N"],
        text: Float[Tensor, "N L D"],
        pooled: Float[Tensor, "N P"] | None = None,
        class_labels: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        picture: Float[Tensor, "N C h w"] | None = None,
    ) -> Float[Tensor, "N C h w"]:
        """What the UNet itself predicts; with a graph if one is wanted.

        `picture` are latents without their scale; zeros, or None, stand for no picture.
        """
        picture = torch.zeros_like(x_t) if picture is None else picture.to(x_t)
        more = self._arguments(class_labels, cross_attention_kwargs)
        return self.ask(torch.cat([x_t, picture], dim=1), t, text, pooled, **more)

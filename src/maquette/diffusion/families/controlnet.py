"""Stable Diffusion behind a ControlNet (Zhang et al. 2023), which follows a control picture."""

from __future__ import annotations

from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from maquette.core.errors import UserError
from maquette.diffusion.latent_denoiser import LatentDenoiser


class ControlNetDenoiser(LatentDenoiser):
    """A UNet whose skip connections a second network steers, from normals, edges or the like.

    Args:
        unet: a diffusers `UNet2DConditionModel`.
        vae: a diffusers `AutoencoderKL`.
        scheduler: gives the noise levels and what the UNet predicts.
        controlnet: a diffusers `ControlNetModel` for this UNet.

    Raises:
        UserError: the two networks do not fit.
    """

    conditioning_scale: float = 1.0
    """How strongly the control picture acts."""

    def __init__(self, unet: Any, vae: Any, scheduler: Any, controlnet: Any) -> None:
        super().__init__(unet, vae, scheduler)
        mine, theirs = unet.config.cross_attention_dim, controlnet.config.cross_attention_dim
        if mine != theirs:
            raise UserError(
                f"The ControlNet reads text of {theirs} numbers a token, the model of {mine}.",
                hint="a ControlNet works with the version of Stable Diffusion that it was trained for",
            )
        self.controlnet = controlnet.eval().requires_grad_(False)

    def to(self, device: torch.device) -> Self:
        """Move everything to a device; returns itself."""
        self.controlnet.to(device)
        return super().to(device)

    def predict(
        self,
        x_t: Float[Tensor, "N C h w"],
        t: Int[Tensor, "N"],
        text: Float[Tensor, "N L D"],
        pooled: Float[Tensor, "N P"] | None = None,
        class_labels: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        control: Float[Tensor, "N 3 H W"] | None = None,
    ) -> Float[Tensor, "N C h w"]:
        """What the UNet itself predicts; without control pictures it is the plain model."""
        if control is None:
            return super().predict(x_t, t, text, pooled, class_labels, cross_attention_kwargs)
        down, middle = self._steering(x_t, t, text, control)
        return self.ask(
            x_t,
            t,
            text,
            pooled,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            **self._arguments(class_labels, cross_attention_kwargs),
        )

    def _steering(self, x_t: Tensor, t: Tensor, text: Tensor, control: Tensor) -> tuple[Any, Tensor]:
        dtype, side = self.controlnet.dtype, (self.image_size, self.image_size)
        if control.shape[-2:] != side:
            control = F.interpolate(control, side, mode="bilinear", antialias=True)
        return self.controlnet(
            x_t.to(dtype),
            t,
            encoder_hidden_states=text.to(dtype),
            controlnet_cond=control.to(dtype),
            conditioning_scale=self.conditioning_scale,
            return_dict=False,
        )

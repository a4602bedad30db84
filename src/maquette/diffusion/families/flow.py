"""Flow models (Stable Diffusion 3, Esser et al. 2024) in the terms of diffusion models.

A rectified flow joins a clean latent and noise by a straight line, z = (1 - s) x0 + s eps, and its network
predicts the direction of the line, u = dz/ds = eps - x0. With

    r(s) = sqrt((1 - s)^2 + s^2),    alpha_bar(s) = (1 - s)^2 / r(s)^2

the same point, divided by r, is a noised latent of a diffusion model:

    x_t = z / r = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps.

So a level s of the flow is a level alpha_bar of diffusion, exactly, and every formula of `score` holds. The
network is asked at z = r x_t; from u follow x0 = z - s u and eps = z + (1 - s) u.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.errors import UserError
from maquette.diffusion.latent_space import LatentSpace
from maquette.diffusion.noise_predictor import NoisePredictor
from maquette.diffusion.score import per_sample


class FlowDenoiser(LatentSpace, NoisePredictor):
    """A transformer that predicts the velocity of a flow, with its autoencoder.

    Its noise levels are the scheduler's (with its shift towards more noise), least noise first. At the last
    of them a flow starts from noise alone, where no picture can be read off any more; that level is put
    halfway to the one before it.

    Args:
        transformer: a diffusers `SD3Transformer2DModel`.
        vae: a diffusers `AutoencoderKL`.
        scheduler: a diffusers `FlowMatchEulerDiscreteScheduler`; its steps are not used.

    Raises:
        UserError: the parts are of another family.
    """

    prediction_type = "flow"

    def __init__(self, transformer: Any, vae: Any, scheduler: Any) -> None:
        _check(transformer, vae, scheduler)
        super().__init__(vae)
        self.transformer = transformer.eval().requires_grad_(False)
        self.sigmas = _levels(scheduler).to(transformer.device)
        self.alphas_cumprod = alpha_bar_of(self.sigmas)
        self._times: int = scheduler.config.num_train_timesteps
        self.latent_size: int = transformer.config.sample_size
        self.image_size: int = self.latent_size * self.pixels_per_latent

    def to(self, device: torch.device) -> Self:
        """Move everything to a device; returns itself."""
        self.transformer.to(device)
        self.vae.to(device)
        self.sigmas, self.alphas_cumprod = self.sigmas.to(device), self.alphas_cumprod.to(device)
        return self

    def predict(
        self,
        x_t: Float[Tensor, "N C h w"],
        t: Int[Tensor, "N"],
        text: Float[Tensor, "N L D"],
        pooled: Float[Tensor, "N P"] | None = None,
    ) -> Float[Tensor, "N C h w"]:
        """The velocity u = eps - x0 of the flow; with a graph if one is wanted."""
        if pooled is None:
            raise UserError(
                "This model needs the pooled text beside the text itself.",
                hint="give prompt processor and guidance the same pretrained_model_name_or_path",
            )
        dtype = self.transformer.dtype
        out = self.transformer(
            hidden_states=self.on_the_line(x_t, t).to(dtype),
            timestep=self.sigmas[t] * self._times,
            encoder_hidden_states=text.to(dtype),
            pooled_projections=pooled.to(dtype),
            return_dict=False,
        )
        return out[0].to(x_t.dtype)

    def on_the_line(self, x_t: Float[Tensor, "N C h w"], t: Int[Tensor, "N"]) -> Float[Tensor, "N C h w"]:
        """z = r x_t, the point of the flow that a noised latent of diffusion is."""
        return per_sample(length(self.sigmas[t]), x_t) * x_t

    def noise_in(
        self, out: Float[Tensor, "N C h w"], x_t: Float[Tensor, "N C h w"], t: Int[Tensor, "N"]
    ) -> Float[Tensor, "N C h w"]:
        """eps = z + (1 - s) u."""
        return self.on_the_line(x_t, t) + (1 - per_sample(self.sigmas[t], x_t)) * out

    def target(
        self, x0: Float[Tensor, "N C h w"], eps: Float[Tensor, "N C h w"], t: Int[Tensor, "N"]
    ) -> Float[Tensor, "N C h w"]:
        """u = eps - x0, the same at every level."""
        return eps - x0


def length(sigma: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """r(s) = sqrt((1 - s)^2 + s^2), the spread of a point of the flow if latents have a spread of one."""
    return torch.hypot(1 - sigma, sigma)


def alpha_bar_of(sigma: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """The level of diffusion that a level of the flow is: (1 - s)^2 / r(s)^2."""
    return ((1 - sigma) / length(sigma)) ** 2


def _levels(scheduler: Any) -> Float[Tensor, "T"]:
    sigmas = scheduler.sigmas[: scheduler.config.num_train_timesteps].detach().float().flip(0).clone()
    sigmas[-1] = (1 + sigmas[-2]) / 2
    return sigmas


def _check(transformer: Any, vae: Any, scheduler: Any) -> None:
    if not hasattr(scheduler, "sigmas") or not hasattr(scheduler.config, "shift"):
        raise UserError(
            f"A flow model with a {type(scheduler).__name__} cannot guide here.",
            hint="its scheduler should be a FlowMatchEulerDiscreteScheduler",
        )
    if transformer.config.in_channels != vae.config.latent_channels:
        raise UserError(
            f"The transformer reads {transformer.config.in_channels} channels, latents have "
            f"{vae.config.latent_channels}."
        )

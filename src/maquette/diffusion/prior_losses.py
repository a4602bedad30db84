"""What the parts of the embedded prior are trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler
from diffusers.models.resnet import ResnetBlock2D
from jaxtyping import Float, Int, UInt8
from torch import Tensor

NARROW_LOG_VARIANCE = -6.0


def as_input(images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Bytes to the autoencoder's range [-1, 1]."""
    return images.float() / 127.5 - 1.0


def edge_difference(a: Float[Tensor, "B C H W"], b: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
    """Mean absolute difference of horizontal and vertical image gradients."""
    error = a - b
    across = (error[..., :, 1:] - error[..., :, :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return across + down


def chroma(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """What is left of a colour without its grey."""
    return images - images.mean(1, keepdim=True)


def prepare_autoencoder(vae: AutoencoderKL) -> None:
    """Start values that save an untrained autoencoder a thousand steps.

    Residual branches begin at zero (Goyal et al. 2017, section 5.1), so that colours pass from the first step
    on, and the posterior begins narrow, so that its noise does not drown them.
    """
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            torch.nn.init.zeros_(module.conv2.weight)
            torch.nn.init.zeros_(module.conv2.bias)
    latents = vae.config["latent_channels"]
    with torch.no_grad():
        vae.quant_conv.weight[latents:].zero_()
        vae.quant_conv.bias[latents:].fill_(NARROW_LOG_VARIANCE)


def autoencoder_terms(
    vae: AutoencoderKL, images: Float[Tensor, "B 3 H W"], noise: Float[Tensor, "B 4 h w"]
) -> dict[str, Float[Tensor, ""]]:
    """Unweighted terms: ``l2``, ``chroma``, ``l1``, ``edge`` and ``kl`` (nats a picture).

    Squared error with an extra weight on colour should lead at the start of a training: absolute and edge
    error, which make sharp pictures later, would first settle for grey silhouettes.
    """
    posterior = vae.encode(images).latent_dist
    again = vae.decode(posterior.mean + posterior.std * noise).sample
    return {
        "l2": F.mse_loss(again, images),
        "chroma": F.mse_loss(chroma(again), chroma(images)),
        "l1": F.l1_loss(again, images),
        "edge": edge_difference(again, images),
        "kl": posterior.kl().mean(),
    }


@torch.no_grad()
def encode_means(
    vae: AutoencoderKL, images: UInt8[Tensor, "N 3 H W"], batch: int = 32
) -> Float[Tensor, "N 4 h w"]:
    """Posterior means, unscaled. Samples would add the noise that the weak Kullback-Leibler term leaves."""
    return torch.cat([vae.encode(as_input(part)).latent_dist.mean for part in images.split(batch)])


def timesteps_at(place: Float[Tensor, " B"], levels: int, exponent: float = 1.0) -> Int[Tensor, " B"]:
    """The timesteps at places in [0, 1): for ``exponent`` 1 a place is the share of the levels below it.

    With an ``exponent`` below 1, places that are spread evenly give more of the upper timesteps, of much
    noise, so that layout and view are trained more than texture.
    """
    return (place**exponent * levels).long().clamp_max(levels - 1)


def velocity_loss(
    unet: Callable[..., Any],
    scheduler: DDIMScheduler,
    latents: Float[Tensor, "B 4 h w"],
    text: Float[Tensor, "B T D"],
    noise: Float[Tensor, "B 4 h w"],
    timesteps: Int[Tensor, " B"],
) -> Float[Tensor, ""]:
    """Mean squared error of the predicted velocity (Salimans and Ho 2022, appendix D)."""
    noisy = scheduler.add_noise(latents, noise, timesteps)
    target = scheduler.get_velocity(latents, noise, timesteps)
    return F.mse_loss(unet(noisy, timesteps, text).sample, target)

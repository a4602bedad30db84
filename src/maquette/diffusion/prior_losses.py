"""What the parts of the embedded prior are trained on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from jaxtyping import Float, Int, UInt8
from torch import Tensor

EDGE_WEIGHT = 1.0
KL_WEIGHT = 1.0e-6


def as_input(images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Bytes to the autoencoder's range [-1, 1]."""
    return images.float() / 127.5 - 1.0


def edge_difference(a: Float[Tensor, "B C H W"], b: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
    """Mean absolute difference of horizontal and vertical image gradients."""
    error = a - b
    across = (error[..., :, 1:] - error[..., :, :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return across + down


def autoencoder_loss(
    vae: AutoencoderKL, images: Float[Tensor, "B 3 H W"], generator: torch.Generator | None = None
) -> dict[str, Float[Tensor, ""]]:
    """Absolute, squared and edge error of the reconstruction with a weak Kullback-Leibler term, and their sum."""
    posterior = vae.encode(images).latent_dist
    again = vae.decode(posterior.sample(generator)).sample
    terms = {
        "l1": F.l1_loss(again, images),
        "l2": F.mse_loss(again, images),
        "edge": EDGE_WEIGHT * edge_difference(again, images),
        "kl": KL_WEIGHT * posterior.kl().mean(),
    }
    return {**terms, "loss": torch.stack(list(terms.values())).sum()}


@torch.no_grad()
def encode_means(vae: AutoencoderKL, images: UInt8[Tensor, "N 3 H W"], batch: int = 64) -> Float[Tensor, "N 4 h w"]:
    """Posterior means, unscaled. Samples would add the noise that the weak Kullback-Leibler term leaves."""
    return torch.cat([vae.encode(as_input(part)).latent_dist.mean for part in images.split(batch)])


def velocity_loss(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    latents: Float[Tensor, "B 4 h w"],
    text: Float[Tensor, "B T D"],
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error of the velocity at random noise levels (Salimans and Ho 2022).

    Timesteps are stratified over the batch, so that every step sees the whole range of noise.
    """
    n, device = len(latents), latents.device
    levels = scheduler.config["num_train_timesteps"]
    position = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    timesteps = (position * levels).long().clamp_max(levels - 1).to(device)
    noise = torch.randn(latents.shape, generator=generator).to(device)
    noisy = scheduler.add_noise(latents, noise, timesteps)
    target = scheduler.get_velocity(latents, noise, timesteps)
    return F.mse_loss(unet(noisy, timesteps, text).sample, target)

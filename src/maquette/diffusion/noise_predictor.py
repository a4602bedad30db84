"""What every denoising network is here, of whatever family: it says where the noise in a sample is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


class NoisePredictor(ABC):
    """A network that reads noised samples, their noise levels and a condition: a text, or in some families a
    picture or cameras. Samples are latents of pictures; all sizes are the model's own.
    """

    alphas_cumprod: Float[Tensor, "T"]
    """The cumulated product of 1 - beta of every noise level."""
    image_size: int
    """Height and width of pictures, pixels."""
    latent_size: int
    """Height and width of latents."""
    latent_channels: int
    """Channels of latents."""

    @property
    def device(self) -> torch.device:
        """Where predictions are computed."""
        return self.alphas_cumprod.device

    @property
    def num_train_timesteps(self) -> int:
        """Number of noise levels."""
        return len(self.alphas_cumprod)

    @torch.no_grad()
    def predict_noise(
        self,
        x_t: Float[Tensor, "N C h w"],
        t: Int[Tensor, "N"],
        text: Float[Tensor, "N L D"],
        pooled: Float[Tensor, "N P"] | None = None,
        **condition: Any,
    ) -> Float[Tensor, "N C h w"]:
        """The noise in noised samples, whatever the network itself predicts; no graph is kept.

        Args:
            x_t: the samples.
            t: their noise levels.
            text: embeddings that the cross-attention reads, of words in most families.
            pooled: embeddings of whole texts, for models that read them.
            condition: further arguments of `predict` of this family.
        """
        return self.noise_in(self.predict(x_t, t, text, pooled, **condition), x_t, t)

    @abstractmethod
    def encode(
        self, images: Float[Tensor, "B 3 H W"], noise: Float[Tensor, "B C h w"] | None = None
    ) -> Float[Tensor, "B C h w"]:
        """Latents of pictures in [0, 1], differentiable; with `noise`, a sample of the posterior."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Pictures of latents, values around [0, 1]."""

    @abstractmethod
    def predict(
        self,
        x_t: Float[Tensor, "N C h w"],
        t: Int[Tensor, "N"],
        text: Float[Tensor, "N L D"],
        pooled: Float[Tensor, "N P"] | None = None,
    ) -> Float[Tensor, "N C h w"]:
        """What the network itself predicts; with a graph if one is wanted."""

    @abstractmethod
    def noise_in(
        self, out: Float[Tensor, "N *S"], x_t: Float[Tensor, "N *S"], t: Int[Tensor, "N"]
    ) -> Float[Tensor, "N *S"]:
        """The noise that a prediction of the network implies."""

    @abstractmethod
    def target(
        self, x0: Float[Tensor, "N *S"], eps: Float[Tensor, "N *S"], t: Int[Tensor, "N"]
    ) -> Float[Tensor, "N *S"]:
        """What the network should predict for clean samples and the noise that was put on them."""

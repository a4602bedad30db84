"""The passage between pictures and the latents of an autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint


class LatentSpace:
    """A diffusers `AutoencoderKL`, with the scale and shift that bring its latents to a spread of one."""

    recompute: bool = False
    """Whether the backward pass calls the autoencoder again, whose weights may be elsewhere by then."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae.eval().requires_grad_(False)
        self.latent_channels: int = vae.config.latent_channels
        self._scale: float = vae.config.scaling_factor
        self._shift: float = getattr(vae.config, "shift_factor", None) or 0.0

    @property
    def pixels_per_latent(self) -> int:
        """Along one axis."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def encode(
        self, images: Float[Tensor, "B 3 H W"], noise: Float[Tensor, "B C h w"] | None = None
    ) -> Float[Tensor, "B C h w"]:
        """Latents of pictures with values in [0, 1], differentiable with respect to the pictures.

        They are the mean of the posterior, or, with standard normal `noise`, a sample of it.
        """
        posterior = self._posterior(images)
        latents = (
            posterior.mean if noise is None else posterior.mean + posterior.std * noise.to(posterior.mean)
        )
        return ((latents - self._shift) * self._scale).to(images.dtype)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Pictures of latents, values around [0, 1] (not clamped)."""
        images = self._call(self.vae.decode, (latents / self._scale + self._shift).to(self.vae.dtype)).sample
        return (images / 2 + 0.5).to(latents.dtype)

    @torch.no_grad()
    def raw_latents(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The mean of the posterior without scale and shift, as models that see a picture were given it."""
        return self._posterior(images).mean.to(images.dtype)

    def _posterior(self, images: Tensor) -> Any:
        return self._call(self.vae.encode, (images * 2 - 1).to(self.vae.dtype)).latent_dist

    def _call(self, function: Callable[[Tensor], Any], x: Tensor) -> Any:
        return recomputed(function, x) if self.recompute and torch.is_grad_enabled() else function(x)


def recomputed(function: Callable[..., Any], *args: Any) -> Any:
    """The value of a function that draws nothing; the backward pass calls it again, and nothing is kept."""
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)

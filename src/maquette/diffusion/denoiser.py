"""What a guidance needs of a latent diffusion model: latents of pictures, and the noise in noised ones."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.device import is_gpu
from maquette.core.errors import UserError
from maquette.diffusion.latent_denoiser import LatentDenoiser
from maquette.diffusion.load import family, newest_change
from maquette.diffusion.memory import NOTHING, Memory, placed


class Denoiser(Protocol):
    """The part of a latent diffusion model that score distillation uses; all sizes are the model's own."""

    alphas_cumprod: Float[Tensor, "T"]
    image_size: int
    latent_size: int
    latent_channels: int

    @property
    def num_train_timesteps(self) -> int:
        """T, the number of noise levels."""

    def encode(
        self, images: Float[Tensor, "B 3 H W"], noise: Float[Tensor, "B C h w"] | None = None
    ) -> Float[Tensor, "B C h w"]:
        """Latents of pictures in [0, 1], differentiable; with `noise`, a sample of the posterior."""

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Pictures of latents, values around [0, 1]."""

    def predict_noise(
        self,
        x_t: Float[Tensor, "N C h w"],
        t: Int[Tensor, "N"],
        text: Float[Tensor, "N L D"],
        pooled: Float[Tensor, "N P"] | None = None,
    ) -> Float[Tensor, "N C h w"]:
        """The noise in noised latents, whatever the model itself predicts; without a graph."""


def load_denoiser(
    name: str,
    dtype: torch.dtype,
    device: torch.device,
    *,
    controlnet: str | None = None,
    memory: Memory = NOTHING,
) -> Any:
    """The denoiser of a model, of whatever family, loaded for one caller, who may change it.

    Models whose predictions need nothing but a text are `Denoiser`s; the others (`diffusion.families`) are
    too, except that `predict_noise` reads a condition more, which they make from pictures or cameras.

    Args:
        name: as for `load_pipeline`.
        dtype: of the weights.
        device: where they are.
        controlnet: a folder or an id of the hub that is a ControlNet, to put before a plain model.
        memory: how to need less of it.

    Raises:
        ModelUnavailableError, UserError: as `load_pipeline`.
        UserError: `memory` offloads networks, and the device is no GPU.
    """
    from maquette.diffusion.families.build import build_denoiser

    memory.check(device)
    return placed(build_denoiser(name, dtype, controlnet), device, memory)


def own_denoiser(
    name: str,
    dtype: torch.dtype,
    device: torch.device,
    *,
    memory: Memory = NOTHING,
) -> LatentDenoiser:
    """`load_denoiser` for callers who need a UNet that denoises latents by a text alone.

    Raises:
        ModelUnavailableError, UserError: as `load_pipeline`.
        UserError: the model is of another family.
    """
    kind = family(name)
    if kind.name not in ("sd", "sdxl"):
        raise UserError(
            f"The model {name} cannot be used for this: it is of the family {kind.name} ({kind.what}).",
            hint="use a model of the Stable Diffusion 1, 2 or SDXL family",
        )
    return load_denoiser(name, dtype, device, memory=memory)


def shared_denoiser(
    name: str,
    dtype: torch.dtype,
    device: torch.device,
    *,
    memory: Memory = NOTHING,
) -> Any:
    """The `Denoiser` of a model that needs nothing but a text, loaded once a process for all who ask alike;
    the last one asked for is kept.

    Nobody may change its weights or settings.

    Raises:
        ModelUnavailableError, UserError: as `load_pipeline`.
        UserError: the model needs more than a text.
    """
    kind = family(name)
    if not kind.text_only:
        raise UserError(
            f"The model {name} needs more than a text: it is of the family {kind.name} ({kind.what}).",
            hint="use the guidance that is named after its family",
        )
    return _shared(name, dtype, device, newest_change(name), memory)


@lru_cache(maxsize=1)
def _shared(name: str, dtype: torch.dtype, device: torch.device, newest: int, memory: Memory) -> Any:
    del newest  # Only part of the key: a folder that was written again is read again.
    return load_denoiser(name, dtype, device, memory=memory)


def weights_dtype(device: torch.device, half: bool) -> torch.dtype:
    """float16 where half precision was asked for and is fast, on a GPU; float32 elsewhere."""
    return torch.float16 if half and is_gpu(device) else torch.float32

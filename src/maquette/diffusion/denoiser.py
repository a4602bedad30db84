"""Loading the denoiser of a diffusion model: for one caller, or once for all."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from maquette.core.device import is_gpu
from maquette.core.errors import UserError
from maquette.diffusion.latent_denoiser import LatentDenoiser
from maquette.diffusion.load import family, newest_change
from maquette.diffusion.memory import NOTHING, Memory, placed


def load_denoiser(
    name: str,
    dtype: torch.dtype,
    device: torch.device,
    *,
    controlnet: str | None = None,
    memory: Memory = NOTHING,
) -> Any:
    """The `NoisePredictor` of a model, of whatever family, loaded for one caller, who may change it.

    What a model reads beside a text, a picture or cameras, is a further argument of its `predict_noise`; the
    model makes it itself (`diffusion.families`).

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
    """The denoiser of a model that needs nothing but a text, loaded once a process for all who ask alike;
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

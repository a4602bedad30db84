"""From the name of a model to the denoiser of its family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch

from maquette.core.errors import UserError
from maquette.diffusion.families.controlnet import ControlNetDenoiser
from maquette.diffusion.families.flow import FlowDenoiser
from maquette.diffusion.families.instruct_pix2pix import InstructPix2PixDenoiser
from maquette.diffusion.families.multiview import MultiViewDenoiser
from maquette.diffusion.families.pixel import PixelDenoiser
from maquette.diffusion.families.zero123 import Zero123Denoiser
from maquette.diffusion.latent_denoiser import LatentDenoiser
from maquette.diffusion.load import family, load_part, load_pipeline


def build_denoiser(name: str, dtype: torch.dtype, controlnet: str | None = None) -> Any:
    """The denoiser of a model, on the CPU; with `controlnet`, of a plain model behind that network.

    Raises:
        ModelUnavailableError, UserError: as `load_pipeline`.
    """
    kind = family(name)
    if controlnet is None:
        pipeline = load_pipeline(name, dtype=dtype, parts=kind.image_parts)
        return _BUILDERS[kind.name](pipeline)
    if kind.name not in ("sd", "controlnet"):
        raise UserError(f"No ControlNet can be put before {name}: it is of the family {kind.name}.")
    parts = load_pipeline(name, dtype=dtype, parts=("unet", "vae", "scheduler"))
    network = load_part(controlnet, dtype=dtype)
    return ControlNetDenoiser(parts.unet, parts.vae, parts.scheduler, network)


def _latent(one: Any) -> LatentDenoiser:
    return LatentDenoiser(one.unet, one.vae, one.scheduler)


def _zero123(one: Any) -> Zero123Denoiser:
    projection = one.cc_projection if one.cc_projection is not None else one.clip_camera_projection
    return Zero123Denoiser(one.unet, one.vae, one.scheduler, one.image_encoder, projection)


_BUILDERS: Final[dict[str, Callable[[Any], Any]]] = {
    "sd": _latent,
    "sdxl": _latent,
    "flow": lambda one: FlowDenoiser(one.transformer, one.vae, one.scheduler),
    "pixel": lambda one: PixelDenoiser(one.unet, one.scheduler),
    "zero123": _zero123,
    "multiview": lambda one: MultiViewDenoiser(one.unet, one.vae, one.scheduler),
    "controlnet": lambda one: ControlNetDenoiser(one.unet, one.vae, one.scheduler, one.controlnet),
    "ip2p": lambda one: InstructPix2PixDenoiser(one.unet, one.vae, one.scheduler),
}

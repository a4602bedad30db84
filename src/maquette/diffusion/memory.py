"""Less memory for the networks of a diffusion model, at the price of time: presets and single switches.

    undo = apply_memory(denoiser, Memory.preset("slicing"))
    ...
    undo()

Every switch leaves the answers as they are, up to rounding, except tiling of pictures larger than a tile.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import nn

from maquette.core.device import is_gpu
from maquette.core.errors import ConfigError, UserError
from maquette.diffusion.latent_space import LatentSpace, recomputed

log = logging.getLogger(__name__)

PARTS: Final = (
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
    "image_encoder",
    "projection",
    "vae",
    "controlnet",
    "unet",
    "transformer",
)
"""The networks of denoisers and pipelines, by the names of their attributes."""

OFFLOADS: Final = ("model", "sequential")
"""One network at a time is on the GPU, or one layer at a time."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What is done to need less memory; by default nothing."""

    attention_slice: Any = None
    """Attention maps at a time: a number, "auto" (half of a module's heads), "max" (one); None for all."""
    memory_efficient_attention: bool = False
    """Fused attention where a network came with attention that is written out."""
    vae_slicing: bool = False
    """The autoencoder takes one picture of a batch at a time."""
    vae_tiling: bool = False
    """The autoencoder takes pictures that are larger than a tile in tiles, and blends them."""
    vae_tile_size: int | None = None
    """Pixels of a tile's side; None for the model's own size."""
    vae_checkpointing: bool = False
    """The encoder keeps little for the backward pass, and computes what it needs again."""
    channels_last: bool = False
    """The denoising network's weights are stored channels last."""
    offload: str = "none"
    """none, model (one network at a time on the GPU) or sequential (one layer at a time)."""

    def __post_init__(self) -> None:
        size = self.attention_slice
        if not (size in (None, "auto", "max") or (type(size) is int and size >= 1)):
            raise ConfigError("attention_slice_size", size, '"auto", "max", or a whole number above 0')
        if self.vae_tile_size is not None and self.vae_tile_size < 64:
            raise ConfigError("vae_tile_size", self.vae_tile_size, "null, or at least 64 pixels")
        if self.offload not in ("none", *OFFLOADS):
            raise ConfigError("offload", self.offload, f"none, {' or '.join(OFFLOADS)}")

    @staticmethod
    def preset(name: str) -> Memory:
        """The settings called `name`: none, slicing, offload or sequential; each saves more than the last.

        Raises:
            ConfigError: there are none of this name.
        """
        if name not in PRESETS:
            raise ConfigError("memory", name, f"one of {', '.join(PRESETS)}")
        return PRESETS[name]

    def check(self, device: torch.device) -> None:
        """Refuse what a device cannot do.

        Raises:
            UserError: networks are to be offloaded, and there is nowhere to offload them from.
        """
        if self.offload != "none" and not is_gpu(device):
            raise UserError(
                f"Offloading ({self.offload}) needs a GPU: networks wait in the CPU's memory while they "
                "are not in use, and on this device they are computed there.",
                hint="use memory: slicing",
            )


NOTHING: Final = Memory()
"""Nothing is done."""

_SLICING: Final = Memory(attention_slice="auto", vae_slicing=True, vae_checkpointing=True)

PRESETS: Final[dict[str, Memory]] = {
    "none": NOTHING,
    "slicing": _SLICING,
    "offload": dataclasses.replace(_SLICING, offload="model"),
    "sequential": dataclasses.replace(_SLICING, offload="sequential"),
}
"""The presets by name."""


def apply_memory(target: Any, memory: Memory, device: torch.device | None = None) -> Callable[[], None]:
    """Change how the networks of `target` compute; gives the function that takes everything back.

    What a target does not have (an autoencoder, a UNet) needs no memory and is passed over.

    Args:
        target: a `NoisePredictor` or a pipeline of diffusers, of any family.
        memory: what to do.
        device: where to compute; networks that are offloaded go there to compute only, the others stay where
            they are. By default where `target` is.

    Raises:
        UserError: networks are to be offloaded without a GPU, or attention maps are being watched.
    """
    device = torch.device(target.device if device is None else device)
    memory.check(device)
    networks = {name: getattr(target, name, None) for name in PARTS}
    found = {name: one for name, one in networks.items() if isinstance(one, nn.Module)}
    with ExitStack() as undo:
        for name in ("unet", "controlnet"):
            if name in found:
                _attention(found[name], memory, undo)
        if memory.attention_slice is not None and "transformer" in found:
            log.warning("A transformer's attention is not sliced: it stays fused.")
        if memory.channels_last:
            _channels_last(found.get("unet", found.get("transformer")), undo)
        if "vae" in found:
            _autoencoder(found["vae"], memory, undo)
        if memory.offload != "none":
            _offload(target, found, memory.offload, device, undo)
        return undo.pop_all().close


def placed(target: Any, device: torch.device, memory: Memory) -> Any:
    """`target` itself, on a device, as `memory` has it; what is offloaded never goes there as a whole."""
    if memory.offload == "none":
        target.to(device)
    apply_memory(target, memory, device)
    return target


def _attention(network: Any, memory: Memory, undo: ExitStack) -> None:
    """Change the processors of the attention modules that the switches know; others keep theirs."""
    from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

    from maquette.diffusion.attention import ExplicitAttention
    from maquette.diffusion.attention_processors import SlicedAttention

    kinds: tuple[type, ...] = (AttnProcessor,) if memory.memory_efficient_attention else ()
    if memory.attention_slice is not None:
        kinds = (AttnProcessor, AttnProcessor2_0)
    for name, module in network.named_modules():
        if not kinds or not isinstance(module, Attention):
            continue
        if isinstance(module.processor, ExplicitAttention):
            raise UserError(
                f"The attention of {name} is being watched, and how it computes cannot be changed now.",
                hint="set the memory options before AttentionCapture or AttentionControl is entered",
            )
        if type(module.processor) in kinds:
            sliced = memory.attention_slice is not None
            new = SlicedAttention(memory.attention_slice or "auto") if sliced else AttnProcessor2_0()
            _set(undo, module, "processor", new)


def _channels_last(network: nn.Module | None, undo: ExitStack) -> None:
    if network is not None:
        undo.callback(network.to, memory_format=torch.contiguous_format)
        network.to(memory_format=torch.channels_last)


def _autoencoder(vae: Any, memory: Memory, undo: ExitStack) -> None:
    if memory.vae_slicing:
        _set(undo, vae, "use_slicing", True)
    if memory.vae_tiling:
        _set(undo, vae, "use_tiling", True)
        if memory.vae_tile_size is not None:
            pixels = 2 ** (len(vae.config.block_out_channels) - 1)
            _set(undo, vae, "tile_sample_min_size", memory.vae_tile_size)
            _set(undo, vae, "tile_latent_min_size", memory.vae_tile_size // pixels)
    if memory.vae_checkpointing:
        from maquette.diffusion.frozen_encoder import keep_less

        keep_less(vae.encoder, partial(_set, undo))
        _set(undo, vae.encoder, "_gradient_checkpointing_func", recomputed)
        _set(undo, vae.encoder, "gradient_checkpointing", True)


def _offload(
    target: Any, networks: dict[str, nn.Module], kind: str, device: torch.device, undo: ExitStack
) -> None:
    from maquette.diffusion.offload import offload

    for name in ("alphas_cumprod", "sigmas"):
        if hasattr(target, name):
            _set(undo, target, name, getattr(target, name).to(device))
    if isinstance(target, LatentSpace):
        _set(undo, target, "recompute", True)
    undo.callback(offload(networks, kind, device))


def _set(undo: ExitStack, owner: Any, name: str, value: Any) -> None:
    """Set an attribute, to be restored."""
    if name in vars(owner) or name in getattr(owner, "_modules", ()):
        undo.callback(setattr, owner, name, getattr(owner, name))
    else:
        undo.callback(delattr, owner, name)
    setattr(owner, name, value)

"""The memory options of guidances, under the names of the ecosystem."""

from dataclasses import dataclass
from typing import Any

from maquette.core.errors import ConfigError
from maquette.diffusion.memory import PRESETS, Memory
from maquette.models.guidance.base import KEY


@dataclass(kw_only=True)
class MemoryOptions:
    """A preset, and switches that are added to it; those that offload need a GPU."""

    memory: str = "none"
    """none; slicing; offload (and one network at a time on the GPU); sequential (and one layer at a time)."""
    enable_attention_slicing: bool = False
    """Whether attention is computed in slices."""
    attention_slice_size: Any = "auto"
    """Attention maps in a slice: a number, "auto" (half of a module's heads), or "max" (one)."""
    enable_memory_efficient_attention: bool = False
    """Whether attention is fused also where a network came without; it is everywhere else."""
    enable_vae_slicing: bool = False
    """Whether the autoencoder takes one picture of a batch at a time."""
    enable_vae_tiling: bool = False
    """Whether the autoencoder takes pictures larger than a tile in tiles; latents differ near the seams."""
    vae_tile_size: int | None = None
    """Pixels of a tile's side; null for the model's own size."""
    enable_vae_gradient_checkpointing: bool = False
    """Whether the encoder keeps little for the backward pass, and computes what it needs again."""
    enable_channels_last_format: bool = False
    """Whether the denoising network's weights are stored channels last."""
    enable_model_cpu_offload: bool = False
    """Whether networks wait in the CPU's memory, one at a time on the GPU."""
    enable_sequential_cpu_offload: bool = False
    """Whether networks wait in the CPU's memory, one layer at a time on the GPU: the least memory, slow."""

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]
        memory_settings(self)


def memory_settings(cfg: Any) -> Memory:
    """The preset of a guidance's options with the switches added.

    Raises:
        ConfigError: one of them has no meaning.
    """
    if cfg.memory not in PRESETS:
        raise ConfigError(f"{KEY}.memory", cfg.memory, f"one of {', '.join(PRESETS)}")
    preset = PRESETS[cfg.memory]
    sliced = cfg.enable_attention_slicing or preset.attention_slice is not None
    sequential = cfg.enable_sequential_cpu_offload or preset.offload == "sequential"
    offload = "sequential" if sequential else "model" if cfg.enable_model_cpu_offload else preset.offload
    try:
        return Memory(
            attention_slice=cfg.attention_slice_size if sliced else None,
            memory_efficient_attention=cfg.enable_memory_efficient_attention,
            vae_slicing=cfg.enable_vae_slicing or preset.vae_slicing,
            vae_tiling=cfg.enable_vae_tiling,
            vae_tile_size=cfg.vae_tile_size,
            vae_checkpointing=cfg.enable_vae_gradient_checkpointing or preset.vae_checkpointing,
            channels_last=cfg.enable_channels_last_format,
            offload=offload,
        )
    except ConfigError as err:
        raise ConfigError(f"{KEY}.{err.key}", err.got, err.expected) from None

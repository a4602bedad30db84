"""Diffusion models of random weights, in the sizes of real ones, and a guidance and a text for them."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from maquette.diffusion.latent_denoiser import LatentDenoiser
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.text import TextEncoding
from maquette.models.guidance.stable_diffusion import StableDiffusionGuidance
from maquette.models.prompt_processors.directions import four_views
from maquette.models.prompt_processors.prompt_utils import PromptUtils

TOKENS = 77
LEVELS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
SIZES = {
    "sd15": {
        "unet": (320, 640, 1280, 1280),
        "vae": (128, 256, 512, 512),
        "heads": 8,
        "text": 768,
        "latent": 64,
    },
    "middle": {"unet": (96, 192, 384, 384), "vae": (32, 64, 128, 128), "heads": 8, "text": 256, "latent": 32},
}
"""Channels of the UNet's and of the autoencoder's levels, heads, width of the text, and side of the latents:
Stable Diffusion 1.5, and a third of it for pictures of 256 x 256."""


def model(name: str, dtype: torch.dtype = torch.float32) -> LatentDenoiser:
    """The denoiser called `name`, on the CPU: sd15, middle, or a name that `load_pipeline` knows."""
    if name in SIZES:
        unet, vae = sd_unet(name).to(dtype), sd_vae(name).to(dtype)
        return LatentDenoiser(unet, vae, DDIMScheduler(**LEVELS))
    parts = load_pipeline(name, dtype=dtype, parts=("unet", "vae", "scheduler"))
    return LatentDenoiser(parts.unet, parts.vae, parts.scheduler)


def sd_unet(name: str, fill: bool = True) -> UNet2DConditionModel:
    """A UNet of the architecture of Stable Diffusion 1; without `fill` only its shapes, on no device."""
    size = SIZES[name]
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=size["latent"],
            block_out_channels=size["unet"],
            cross_attention_dim=size["text"],
            attention_head_dim=size["heads"],
        )
    return filled(unet) if fill else unet


def sd_vae(name: str) -> AutoencoderKL:
    """Its autoencoder."""
    size, levels = SIZES[name], len(SIZES[name]["vae"])
    with torch.device("meta"):
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=size["vae"],
            layers_per_block=2,
            latent_channels=4,
            sample_size=8 * size["latent"],
        )
    return filled(vae)


@torch.no_grad()
def filled(module: nn.Module) -> nn.Module:
    """The module with weights that keep what passes near one; they repeat, which is quick to make."""
    module.to_empty(device="cpu")
    pattern = torch.randn(1 << 16, generator=torch.Generator().manual_seed(0))
    for name, weight in module.named_parameters():
        flat = weight.view(-1)
        if weight.ndim == 1:
            flat.fill_(1.0 if name.endswith("weight") else 0.0)
            continue
        whole = flat[: len(flat) // len(pattern) * len(pattern)].view(-1, len(pattern))
        whole.copy_(pattern)
        flat[whole.numel() :] = pattern[: len(flat) - whole.numel()]
        weight.mul_(weight[0].numel() ** -0.5)
    return module


def guidance(denoiser: LatentDenoiser) -> StableDiffusionGuidance:
    """Score distillation sampling with a denoiser."""
    return StableDiffusionGuidance({}, denoiser)


def prompt(denoiser: LatentDenoiser) -> PromptUtils:
    """A text of four views, of random embeddings."""
    width = denoiser.unet.config.cross_attention_dim
    rows = torch.randn(6, TOKENS, width, generator=torch.Generator().manual_seed(1))
    rows = TextEncoding(rows).to(denoiser.device)
    directions = four_views()
    return PromptUtils(
        prompt="a toy",
        prompts_vd=directions.prompts("a toy"),
        directions=directions,
        text=rows[:1],
        text_vd=rows[1:5],
        uncond=rows[5:],
    )


def pictures(denoiser: LatentDenoiser, batch: int) -> Tensor:
    """Pictures (B, H, W, 3) of the model's size, whose gradient is wanted."""
    side = denoiser.image_size
    drawn = torch.rand(batch, side, side, 3, generator=torch.Generator().manual_seed(2))
    return drawn.to(denoiser.device).requires_grad_()

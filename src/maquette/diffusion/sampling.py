"""Pictures from a text-to-image pipeline, for sheets and for judging it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.random import RandomStreams
from maquette.diffusion.embedded import Pipeline


@torch.no_grad()
def sample_images(
    pipeline: Pipeline,
    prompts: Sequence[str],
    seed: int = 0,
    steps: int = 25,
    guidance_scale: float = 3.0,
    batch: int = 25,
    first: int = 0,
) -> Float[Tensor, "B 3 H W"]:
    """A picture in [0, 1] for each prompt; picture i depends on the seed, i and its own prompt only, where
    the first one here is number `first`.
    """
    pipeline.set_progress_bar_config(disable=True)
    size, channels = pipeline.unet.config["sample_size"], pipeline.unet.config["in_channels"]
    pictures = []
    for start in range(0, len(prompts), batch):
        part = list(prompts[start : start + batch])
        rng = RandomStreams(seed).at(0, range(first + start, first + start + len(part)))
        pictures.append(
            pipeline(
                part,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                latents=rng.normal("sampling/latents", channels, size, size).to(
                    pipeline.device, pipeline.dtype
                ),
                output_type="pt",
            ).images
        )
    return torch.cat(pictures).float()

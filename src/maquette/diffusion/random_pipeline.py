"""Small pipelines with random weights: the same classes as real models, built in memory within a second.

They are named "maquette/random-tiny", with options like those of a web address:
"maquette/random-tiny?prediction=v_prediction&vae=8&encoders=2&seed=1".
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from maquette.diffusion.random_parts import (
    NO_CHECKER,
    WIDTH,
    Builders,
    RandomPipelineSpec,
    byte_tokenizer,
    text_config,
    tiny_unet,
    tiny_vae,
)

_TIME_IDS = 6
_TIME_WIDTH = 8


def build_random_pipeline(
    spec: RandomPipelineSpec, dtype: torch.dtype = torch.float32, parts: Collection[str] | None = None
) -> DiffusionPipeline:
    """A pipeline of the family's own class, of random weights: StableDiffusionPipeline, IFPipeline, ...

    Parts that are not asked for are None; all are built by default. A spec gives each part the same weights
    whatever else is built, and the global random state is left as it was.
    """
    builders, assemble = _recipe(spec)
    built: dict[str, Any] = dict.fromkeys(builders)
    with torch.random.fork_rng(devices=[]):
        for number, (part, builder) in enumerate(builders.items()):
            if parts is None or part in parts:
                torch.manual_seed(1000 * spec.seed + number)
                built[part] = builder(spec)
    pipeline = assemble(built)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(dtype)


def _recipe(spec: RandomPipelineSpec) -> tuple[Builders, Callable[[dict[str, Any]], DiffusionPipeline]]:
    """The builders of a pipeline's parts, in an order that never changes, and what puts them together."""
    if spec.family == "sdxl":
        return _BUILDERS, lambda parts: StableDiffusionXLPipeline(**parts)
    one_encoder = {part: builder for part, builder in _BUILDERS.items() if not part.endswith("_2")}
    if spec.family == "sd":
        return one_encoder, lambda parts: StableDiffusionPipeline(**parts, **NO_CHECKER)
    from maquette.diffusion.random_families import recipe

    return recipe(spec, one_encoder)


def _unet(spec: RandomPipelineSpec) -> UNet2DConditionModel:
    extra: dict[str, Any] = {}
    if spec.encoders == 2:
        extra = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": _TIME_WIDTH,
            "projection_class_embeddings_input_dim": WIDTH + _TIME_IDS * _TIME_WIDTH,
        }
    elif spec.pooled:
        extra = {"addition_embed_type": "text", "addition_embed_type_num_heads": 2}
    return tiny_unet(spec, **extra)


def _scheduler(spec: RandomPipelineSpec) -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=spec.prediction,
    )


_BUILDERS: Builders = {
    "scheduler": _scheduler,
    "unet": _unet,
    "vae": tiny_vae,
    "tokenizer": lambda spec: byte_tokenizer(),
    "text_encoder": lambda spec: CLIPTextModel(text_config()),
    "tokenizer_2": lambda spec: byte_tokenizer(),
    "text_encoder_2": lambda spec: CLIPTextModelWithProjection(text_config()),
}

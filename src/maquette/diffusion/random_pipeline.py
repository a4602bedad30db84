"""Small pipelines with random weights: the same classes as real models, built in memory within a second.

They are named "maquette/random-tiny", with options like those of a web address:
"maquette/random-tiny?prediction=v_prediction&vae=8&encoders=2&seed=1".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from maquette.core.errors import ConfigError
from maquette.core.paths import RANDOM_TINY

WIDTH = 32
"""Width of the text encoders, and so of the cross-attention of each."""

_TIME_IDS = 6
_TIME_WIDTH = 8


@dataclass(frozen=True, kw_only=True)
class RandomPipelineSpec:
    """What a random pipeline looks like; every combination works."""

    prediction: str = "epsilon"
    """epsilon, v_prediction or sample."""
    vae: int = 4
    """Pixels of the image for each latent, along one axis: 2, 4 or 8."""
    encoders: int = 1
    """Text encoders: 1 as in Stable Diffusion, 2 (with pooled text and sizes) as in SDXL."""
    latent: int = 8
    """Height and width of the latents."""
    channels: int = 4
    """Channels of the latents."""
    pooled: bool = False
    """Whether the UNet also reads the text through its time embedding (`addition_embed_type="text"`)."""
    seed: int = 0
    """Of the weights."""

    @classmethod
    def parse(cls, name: str) -> RandomPipelineSpec:
        """The spec that `name` describes.

        Raises:
            ConfigError: for an unknown option or a value that has no meaning.
        """
        types: dict[str, Any] = {one.name: type(one.default) for one in dataclasses.fields(cls)}
        given: dict[str, Any] = {}
        for key, value in parse_qsl(name.partition("?")[2], keep_blank_values=True):
            if key not in types:
                raise ConfigError(f"{RANDOM_TINY}?{key}", value, f"one of the options {', '.join(types)}")
            given[key] = _read(key, value, types[key])
        return cls(**given)

    def __post_init__(self) -> None:
        allowed = {"prediction": ("epsilon", "v_prediction", "sample"), "vae": (2, 4, 8), "encoders": (1, 2)}
        for key, choices in allowed.items():
            if getattr(self, key) not in choices:
                raise ConfigError(f"{RANDOM_TINY}?{key}", getattr(self, key), f"one of {choices}")


def build_random_pipeline(
    spec: RandomPipelineSpec, dtype: torch.dtype = torch.float32, parts: Collection[str] | None = None
) -> DiffusionPipeline:
    """A StableDiffusionPipeline (one text encoder) or StableDiffusionXLPipeline (two) of random weights.

    Parts that are not asked for are None; all are built by default. A spec gives each part the same weights
    whatever else is built, and the global random state is left as it was.
    """
    builders = (
        _BUILDERS if spec.encoders == 2 else {k: v for k, v in _BUILDERS.items() if not k.endswith("_2")}
    )
    built: dict[str, Any] = dict.fromkeys(builders)
    with torch.random.fork_rng(devices=[]):
        for number, (part, builder) in enumerate(builders.items()):
            if parts is None or part in parts:
                torch.manual_seed(1000 * spec.seed + number)
                built[part] = builder(spec)
    pipeline = _assemble(spec, built)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(dtype)


def byte_tokenizer(max_length: int = 77) -> PreTrainedTokenizerFast:
    """A tokenizer that knows every text: one token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", *alphabet, "<s>", "</s>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    ends = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=max_length,
    )


def _read(key: str, value: str, kind: type) -> Any:
    if kind is bool:
        return value.lower() in ("1", "true", "yes", "")
    try:
        return kind(value)
    except ValueError:
        raise ConfigError(f"{RANDOM_TINY}?{key}", value, f"a {kind.__name__}") from None


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
    return UNet2DConditionModel(
        sample_size=spec.latent,
        in_channels=spec.channels,
        out_channels=spec.channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=WIDTH * spec.encoders,
        attention_head_dim=2,
        norm_num_groups=8,
        **extra,
    )


def _vae(spec: RandomPipelineSpec) -> AutoencoderKL:
    levels = spec.vae.bit_length()
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(8, 16, 16, 16)[:levels],
        layers_per_block=1,
        latent_channels=spec.channels,
        norm_num_groups=4,
        sample_size=spec.latent * spec.vae,
        scaling_factor=0.5,
    )


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


def _text_config() -> CLIPTextConfig:
    tokenizer = byte_tokenizer()
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _assemble(spec: RandomPipelineSpec, parts: dict[str, Any]) -> DiffusionPipeline:
    if spec.encoders == 2:
        return StableDiffusionXLPipeline(**parts)
    return StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )


_BUILDERS: dict[str, Callable[[RandomPipelineSpec], Any]] = {
    "scheduler": _scheduler,
    "unet": _unet,
    "vae": _vae,
    "tokenizer": lambda spec: byte_tokenizer(),
    "text_encoder": lambda spec: CLIPTextModel(_text_config()),
    "tokenizer_2": lambda spec: byte_tokenizer(),
    "text_encoder_2": lambda spec: CLIPTextModelWithProjection(_text_config()),
}

"""What small random pipelines are made of: the options in their names, and the networks that they share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from diffusers import (
    AutoencoderKL,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, PreTrainedTokenizerFast

from maquette.core.errors import ConfigError
from maquette.core.paths import RANDOM_TINY
from maquette.diffusion.families.kinds import FAMILIES

WIDTH = 32
"""Width of the text encoders, and so of the cross-attention of each."""

NO_CHECKER: dict[str, Any] = {
    "safety_checker": None,
    "feature_extractor": None,
    "requires_safety_checker": False,
}
"""What pipelines ask for and is not needed here."""


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
    family: str = "sd"
    """The family of the classes (`diffusion.families.kinds`); "sdxl" is the same as encoders=2."""
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
        allowed: dict[str, tuple[Any, ...]] = {
            "prediction": ("epsilon", "v_prediction", "sample"),
            "vae": (2, 4, 8),
            "encoders": (1, 2),
            "family": tuple(FAMILIES),
        }
        for key, choices in allowed.items():
            if getattr(self, key) not in choices:
                raise ConfigError(f"{RANDOM_TINY}?{key}", getattr(self, key), f"one of {choices}")
        if self.family == "sdxl" or (self.family == "sd" and self.encoders == 2):
            object.__setattr__(self, "family", "sdxl")
            object.__setattr__(self, "encoders", 2)
        elif self.family != "sd" and self.encoders != 1:
            raise ConfigError(f"{RANDOM_TINY}?encoders", self.encoders, f"1 for the family {self.family}")


Builders = dict[str, Callable[[RandomPipelineSpec], Any]]
"""How each part of a pipeline is made, by the part's name."""


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


def tiny_unet(spec: RandomPipelineSpec, **extra: Any) -> UNet2DConditionModel:
    """A UNet of two levels for these latents; `extra` in place of its arguments."""
    return UNet2DConditionModel(**{**unet_shape(spec), **extra})


def unet_shape(spec: RandomPipelineSpec) -> dict[str, Any]:
    """The arguments of `tiny_unet`."""
    return {
        "sample_size": spec.latent,
        "in_channels": spec.channels,
        "out_channels": spec.channels,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "cross_attention_dim": WIDTH * spec.encoders,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
    }


def tiny_vae(spec: RandomPipelineSpec, **extra: Any) -> AutoencoderKL:
    """An autoencoder for these latents."""
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
        **extra,
    )


def text_config() -> CLIPTextConfig:
    """A CLIP text encoder of two layers over bytes."""
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

"""The embedded prior: a Stable-Diffusion-shaped pipeline small enough to ship, built part by part."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from jaxtyping import Int
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from maquette.core.errors import MissingFileError

Autoencoder = AutoencoderKL
Pipeline = StableDiffusionPipeline

IMAGE_SIZE: Final = 64
LATENT_SIZE: Final = 16
LATENT_CHANNELS: Final = 4
MAX_TOKENS: Final = 16
TEXT_WIDTH: Final = 128

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<s>", "</s>"
SPARE_WORDS: Final = tuple(f"<new{i}>" for i in range(1, 9))
"""Words without a meaning yet, for fine-tuning on new toys."""
COMMON_WORDS: Final = (
    "photo",
    "picture",
    "of",
    "the",
    "a",
    "an",
    "and",
    "with",
    "view",
    "side",
    "sks",
    "nice",
    "new",
    "small",
    "big",
    "toy",
    ",",
    ".",
)


def build_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """Word-level tokenizer over ``words``; lower-cases, splits at blanks and punctuation, pads to 16."""
    known = sorted({*words, *COMMON_WORDS} - {""})
    order = (PAD, UNKNOWN, START, END, *SPARE_WORDS, *known)
    vocabulary = {word: index for index, word in enumerate(order)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        pad_token=PAD,
        extra_special_tokens=list(SPARE_WORDS),
        model_max_length=MAX_TOKENS,
    )


def tokenize(tokenizer: PreTrainedTokenizerFast, captions: Sequence[str]) -> Int[Tensor, "B 16"]:
    """Token ids the way the pipeline asks for them: padded and cut to 16."""
    batch = tokenizer(
        list(captions), padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    return batch.input_ids


def build_text_encoder(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    """Two causal layers, 128 wide."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_vae(channels: Sequence[int] = (16, 32, 64)) -> AutoencoderKL:
    """Autoencoder of 3 x 64 x 64 pictures in [-1, 1] to 4 x 16 x 16 latents."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=tuple(channels),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=IMAGE_SIZE,
        scaling_factor=1.0,
        shift_factor=0.0,
        force_upcast=False,
    )


def load_vae(folder: str | Path) -> AutoencoderKL:
    """A trained autoencoder in float32, frozen, from the folder that ``save_pretrained`` wrote.

    Raises:
        MissingFileError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise MissingFileError(
            folder, "folder of a trained autoencoder", "train one with the recipe prior-vae"
        )
    return AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).eval().requires_grad_(False)


def build_unet(channels: Sequence[int] = (80, 96, 96), head_width: int = 32) -> UNet2DConditionModel:
    """Denoiser of 4 x 16 x 16 latents with cross-attention at 8 x 8 and 4 x 4.

    The pooled caption also reaches every block through the time embedding (``addition_embed_type``), without
    which the words of the view are hardly heard; it is also why the full resolution can do without attention,
    which would double the time of a step. Diffusers reads ``attention_head_dim`` as a number of heads.
    """
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=tuple(channels),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=tuple(max(1, width // head_width) for width in channels),
        norm_num_groups=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise levels with velocity prediction (Salimans and Ho 2022, appendix D).

    Noise prediction gives the layout, hence the view, almost no weight at high noise levels.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
        prediction_type="v_prediction",
    )


def assemble(
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: PreTrainedTokenizerFast,
) -> StableDiffusionPipeline:
    """The parts as one ordinary pipeline."""
    return StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_half(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write the pipeline as float16 safetensors; its own weights stay as they are."""
    parts = {name: getattr(pipeline, name) for name in ("vae", "unet", "text_encoder")}
    halves = {name: copy.deepcopy(part).to(torch.float16) for name, part in parts.items()}
    assemble(**halves, tokenizer=pipeline.tokenizer).save_pretrained(folder, safe_serialization=True)

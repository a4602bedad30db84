"""Prompts read by the text encoder of a Stable Diffusion pipeline, of SDXL, or of the embedded prior."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from maquette.core.errors import ConfigError
from maquette.core.registry import register
from maquette.diffusion.denoiser import weights_dtype
from maquette.diffusion.long_prompts import encode_windows
from maquette.diffusion.lora import LoRAFile
from maquette.diffusion.memory import PRESETS
from maquette.diffusion.text import TextEncoding, empty_is_zero, encode_prompts
from maquette.models.prompt_processors.base import KEY, PromptProcessor


@register("stable-diffusion-prompt-processor")
class StableDiffusionPromptProcessor(PromptProcessor):
    """Encodes with the text encoder, or the two text encoders, of the model's own pipeline."""

    @dataclass(kw_only=True)
    class Config(PromptProcessor.Config):
        """The options of every prompt processor, and how the text encoder reads."""

        long_prompts: bool = True
        """Whether a prompt longer than the text encoder is read in several windows; else it is cut."""
        lora: list[Any] = field(default_factory=list)
        """Adapters whose new words and whose changes of the text encoder are used, as in `guidance.lora`."""
        memory: str = "none"
        """offload: one text encoder at a time is on the GPU; sequential: one layer; they are freed after use
        in any case."""

        def __post_init__(self) -> None:
            super().__post_init__()
            LoRAFile.parse(self.lora, f"{KEY}.lora")
            if self.memory not in PRESETS:
                raise ConfigError(f"{KEY}.memory", self.memory, f"one of {', '.join(PRESETS)}")

    def encode(self, texts: Sequence[str]) -> TextEncoding:
        """Embeddings of N texts, of the length of the longest.

        No text is all zeros for a model that was trained so, and the embedding of "" for the others.
        """
        model = self.model_name()
        encode = encode_windows if self.cfg.long_prompts else encode_prompts
        rows = encode(
            model,
            texts,
            dtype=self.dtype(),
            device=self.device,
            use_cache=self.cfg.use_cache,
            adapters=LoRAFile.parse(self.cfg.lora, f"{KEY}.lora"),
            memory=PRESETS[self.cfg.memory],
        )
        if "" not in texts or not empty_is_zero(model):
            return rows
        zeros = rows.zeros()
        return TextEncoding.cat([(rows if text else zeros)[[i]] for i, text in enumerate(texts)])

    def model_name(self) -> str:
        """Whose text encoder reads."""
        return str(self.cfg.pretrained_model_name_or_path)

    def dtype(self) -> torch.dtype:
        """Of the text encoder's weights."""
        return weights_dtype(self.device, self.cfg.half_precision_weights)

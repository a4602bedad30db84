"""Prompts read by the T5 encoder of DeepFloyd IF."""

from dataclasses import dataclass

import torch

from maquette.core.registry import register
from maquette.diffusion.families.kinds import of_family
from maquette.models.prompt_processors.stable_diffusion import StableDiffusionPromptProcessor


@register("deep-floyd-prompt-processor")
class DeepFloydPromptProcessor(StableDiffusionPromptProcessor):
    """Encodes with the pipeline's own T5, windows of 77 tokens; the encoder is freed before training."""

    @dataclass(kw_only=True)
    class Config(StableDiffusionPromptProcessor.Config):
        """The options of every prompt processor, with the model of DeepFloyd IF."""

        pretrained_model_name_or_path: str = "DeepFloyd/IF-I-XL-v1.0"
        """Whose text encoder reads the prompt: a folder, or an id of the hub (gated: its licence)."""
        half_precision_weights: bool = True
        """Whether the text encoder is read in bfloat16, on a CPU too: 10 GB in place of 19."""

    def model_name(self) -> str:
        """Whose text encoder reads; a random model is one of this family."""
        return of_family(super().model_name(), "pixel")

    def dtype(self) -> torch.dtype:
        """bfloat16 in half precision, in which T5 was trained; float16 overflows in it."""
        return torch.bfloat16 if self.cfg.half_precision_weights else torch.float32

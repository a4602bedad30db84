"""Prompts read by the text encoder of a Stable Diffusion pipeline, of SDXL, or of the embedded prior."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from maquette.core.registry import register
from maquette.diffusion.denoiser import weights_dtype
from maquette.diffusion.lora import LoRAFile
from maquette.diffusion.text import TextEncoding, empty_is_zero, encode_prompts
from maquette.models.prompt_processors.base import KEY, PromptProcessor


@register("stable-diffusion-prompt-processor")
class StableDiffusionPromptProcessor(PromptProcessor):
    """Encodes with the text encoder, or the two text encoders, of the model's own pipeline."""

    @dataclass(kw_only=True)
    class Config(PromptProcessor.Config):
        """The options of every prompt processor, and adapters."""

        lora: list[Any] = field(default_factory=list)
        """Adapters whose new words and whose changes of the text encoder are used, as in `guidance.lora`."""

        def __post_init__(self) -> None:
            super().__post_init__()
            LoRAFile.parse(self.lora, f"{KEY}.lora")

    def encode(self, prompts: Sequence[str], negative: str) -> tuple[TextEncoding, TextEncoding]:
        """Embeddings of the prompts (N rows) and of the negative prompt (one row).

        No negative prompt is all zeros for a model that was trained so, and the embedding of "" for the
        others.
        """
        model: str = self.cfg.pretrained_model_name_or_path
        dtype = weights_dtype(self.device, self.cfg.half_precision_weights)
        rows = encode_prompts(
            model,
            [*prompts, negative],
            dtype=dtype,
            device=self.device,
            use_cache=self.cfg.use_cache,
            adapters=LoRAFile.parse(self.cfg.lora, f"{KEY}.lora"),
        )
        texts, uncond = rows[:-1], rows[-1:]
        return texts, uncond.zeros() if not negative and empty_is_zero(model) else uncond

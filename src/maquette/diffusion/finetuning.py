"""A pipeline that learns from a few pictures: by an adapter (LoRA), or in all its weights (DreamBooth)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from maquette.core.errors import UserError
from maquette.core.random import named_generator
from maquette.diffusion.latent_denoiser import LatentDenoiser
from maquette.diffusion.load import family, load_pipeline, quiet_libraries
from maquette.diffusion.lora import (
    ADAPTER_FILE,
    RANK,
    TARGETS,
    TEXT_TARGETS,
    adapter_parameters,
    add_adapter,
    save_adapter,
)
from maquette.diffusion.new_words import WORDS_FILE, add_words, learn_words, save_words
from maquette.diffusion.score import add_noise

Method = Literal["lora", "dreambooth"]
METHODS: Final = ("lora", "dreambooth")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What of a pipeline trains."""

    method: Method = "lora"
    """An adapter beside the attention layers, or every weight of the UNet (Ruiz et al. 2023)."""
    rank: int = RANK
    """Of the adapter."""
    targets: Sequence[str] = TARGETS
    """Layers of the UNet that the adapter changes."""
    text_encoder: bool = False
    """Whether the text encoder trains in the same way."""
    words: Mapping[str, str] = field(default_factory=dict)
    """New words, and the known ones with whose embedding each begins; their embeddings train always."""


class FineTuner(nn.Module):
    """A pipeline of the Stable Diffusion 1 or 2 family; only what trains of it is a submodule.

    Args:
        pipeline: in float32; it is changed.
        plan: what trains.
        seed: of the adapter's first weights.

    Raises:
        UserError: the plan names layers or words that the pipeline does not have.
    """

    pipeline: Any
    denoiser: LatentDenoiser
    plan: Plan

    def __init__(self, pipeline: Any, plan: Plan, seed: int = 0) -> None:
        super().__init__()
        unet, encoder = pipeline.unet, pipeline.text_encoder
        denoiser = LatentDenoiser(unet, pipeline.vae, pipeline.scheduler)  # freezes the UNet
        self.__dict__.update(pipeline=pipeline, denoiser=denoiser, plan=plan)
        encoder.eval().requires_grad_(False)
        words = learn_words(pipeline.tokenizer, encoder, plan.words) if plan.words else None
        self.unet = _trained(unet, plan, plan.targets, named_generator(seed, "lora/unet"))
        if plan.text_encoder:
            generator = named_generator(seed, "lora/text_encoder")
            self.text_encoder = _trained(encoder, plan, TEXT_TARGETS, generator)
        if words is not None:
            words.rows.requires_grad_(True)  # an adapter has frozen all that it found
            self.words = nn.ParameterList([words.rows])

    @classmethod
    def load(cls, name: str, plan: Plan, device: torch.device, seed: int = 0) -> FineTuner:
        """The model called `name`, ready to learn.

        Raises:
            ModelUnavailableError, UserError: as `load_pipeline`, or for a model of another family.
        """
        kind = family(name)
        if kind.name != "sd":
            raise UserError(
                f"The model {name} cannot be fine-tuned here: it is of the family {kind.name} ({kind.what}).",
                hint="use a model of the Stable Diffusion 1 or 2 family",
            )
        return cls(load_pipeline(name).to(device), plan, seed)

    def loss(
        self,
        images: Float[Tensor, "B 3 H W"],
        captions: Sequence[str],
        noise: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
    ) -> Float[Tensor, "B"]:
        """The mean squared error of what the UNet predicts (noise, velocity or latents), of each picture.

        Args:
            images: in [0, 1], of the model's size.
            captions: of each picture.
            noise: standard normal.
            t: noise levels.
        """
        with torch.no_grad():
            x0 = self.denoiser.encode(images)
        x_t = add_noise(x0, noise, self.denoiser.alphas_cumprod[t])
        out = self.denoiser.predict(x_t, t, self.read(captions))
        error = F.mse_loss(out.float(), self.denoiser.target(x0, noise, t).float(), reduction="none")
        return error.mean((1, 2, 3))

    def read(self, captions: Sequence[str]) -> Float[Tensor, "B L D"]:
        """Embeddings of captions, with a graph where the text trains."""
        tokenizer = self.pipeline.tokenizer
        tokens = tokenizer(
            list(captions),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        hidden: Tensor = self.pipeline.text_encoder(tokens.input_ids.to(self.denoiser.device))[0]
        return hidden

    def word_rows(self) -> dict[str, Float[Tensor, "D"]]:
        """The present embeddings of the new words."""
        return dict(zip(self.plan.words, self.words[0].detach(), strict=True)) if self.plan.words else {}

    def save(self, folder: Path, dtype: torch.dtype) -> list[Path]:
        """Write what was learned; all weight files.

        An adapter is `pytorch_lora_weights.safetensors` with `learned_embeds.safetensors` beside it where
        there are new words; DreamBooth leaves `pipeline`, a folder that diffusers loads.
        """
        if self.plan.method == "dreambooth":
            return self._save_pipeline(folder / "pipeline", dtype)
        encoder = self.pipeline.text_encoder if self.plan.text_encoder else None
        path = folder / ADAPTER_FILE
        files = [save_adapter(self.pipeline.unet, path, text_encoder=encoder, dtype=dtype)]
        if self.plan.words:
            files.append(save_words(folder / WORDS_FILE, self.word_rows()))
        return files

    def _save_pipeline(self, folder: Path, dtype: torch.dtype) -> list[Path]:
        parts = dict(self.pipeline.components)
        encoder = copy.deepcopy(parts["text_encoder"])
        if self.plan.words:
            encoder.set_input_embeddings(encoder.get_input_embeddings().table)
            add_words(parts["tokenizer"], encoder, self.word_rows())
        parts["text_encoder"] = encoder.to(dtype)
        for name in ("unet", "vae"):
            parts[name] = copy.deepcopy(parts[name]).to(dtype)
        whole = type(self.pipeline)(**parts, requires_safety_checker=False)
        with quiet_libraries():
            whole.save_pretrained(folder, safe_serialization=True)
        return sorted(folder.rglob("*.safetensors"))


def _trained(model: nn.Module, plan: Plan, targets: Sequence[str], generator: torch.Generator) -> nn.Module:
    """What of a model trains: the weights of a fresh adapter, or all of it."""
    if plan.method == "dreambooth":
        return model.requires_grad_(True)
    add_adapter(model, rank=plan.rank, targets=targets, generator=generator)
    found = adapter_parameters(model)
    return nn.ParameterDict({name.replace(".", "-"): one for name, one in found.items()})

"""What guidances share whose model reads more than a text: a picture, a control picture, or cameras."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.diffusion.denoiser import load_denoiser
from maquette.diffusion.families.kinds import of_family
from maquette.diffusion.load import family
from maquette.models.guidance.base import KEY
from maquette.models.guidance.stable_diffusion import StableDiffusionGuidance
from maquette.models.guidance.view_text import ViewText
from maquette.models.prompt_processors.base import TextEncoding


@dataclass(frozen=True)
class ConditionedEncoding(TextEncoding):
    """Embeddings of N rows, and what the model reads beside each."""

    condition: Float[Tensor, "N *S"] | None = None
    """Latents of a picture, a control picture, or a camera."""

    @staticmethod
    def of(text: TextEncoding, condition: Float[Tensor, "N *S"]) -> "ConditionedEncoding":
        """Text and condition, row by row."""
        return ConditionedEncoding(text.hidden, text.pooled, condition)

    def __getitem__(self, rows: slice | list[int] | Tensor) -> "ConditionedEncoding":
        return ConditionedEncoding.of(super().__getitem__(rows), self.condition[rows])

    @staticmethod
    def cat(parts: Sequence["ConditionedEncoding"]) -> "ConditionedEncoding":  # type: ignore[override]
        """All rows of several of one model."""
        return ConditionedEncoding.of(TextEncoding.cat(parts), torch.cat([part.condition for part in parts]))


@dataclass(frozen=True)
class ConditionedText(ViewText):
    """A prompt for B pictures, each with a condition of its own."""

    condition: Float[Tensor, "B *S"]
    """Row by row what the model reads beside the text."""

    def first(self, n: int) -> "ConditionedText":
        """That of the first n pictures."""
        return replace(
            self,
            elevation=self.elevation[:n],
            azimuth=self.azimuth[:n],
            condition=self.condition[:n],
        )

    def encoding(self) -> ConditionedEncoding:
        """2B rows [cond; uncond]; both have the condition."""
        return ConditionedEncoding.of(super().encoding(), torch.cat([self.condition] * 2))

    def encoding_perp_neg(self) -> tuple[ConditionedEncoding, Float[Tensor, "B K"]]:
        """2B + BK rows [cond; uncond; negatives, each picture's K together] and the negatives' weights."""
        text, weights = super().encoding_perp_neg()
        negatives = self.condition.repeat_interleave(weights.shape[1], 0)
        return ConditionedEncoding.of(text, torch.cat([self.condition, self.condition, negatives])), weights

    def null(self) -> ConditionedEncoding:
        """B rows: the condition alone, without any text."""
        return ConditionedEncoding.of(super().null(), self.condition)


class ConditionedGuidance(StableDiffusionGuidance):
    """Distillation by any rule, with a model of one family beside Stable Diffusion."""

    family: ClassVar[str]
    """The family of its models (`maquette.diffusion.families.kinds`)."""
    reads: ClassVar[str]
    """Name of the argument of `predict_noise` that takes the condition."""

    def _open(self, name: str, dtype: torch.dtype, own: bool, **switches: Any) -> Any:
        """A model of the right family; each of these guidances has one of its own."""
        name = of_family(name, self.family)
        check_family(name, self.family)
        return load_denoiser(name, dtype, self.device, **switches)

    def _beside(self, text: ConditionedEncoding) -> dict[str, Tensor]:
        return {self.reads: text.condition}


def check_family(name: str, kind: str) -> None:
    """Refuse a model of another family.

    Raises:
        ConfigError: it is one.
    """
    found = family(name)
    if found.name != kind:
        raise ConfigError(
            f"{KEY}.pretrained_model_name_or_path",
            name,
            f"a model of the family {kind}; this one is of {found.name} ({found.what})",
        )

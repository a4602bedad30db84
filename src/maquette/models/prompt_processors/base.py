"""What a guidance asks for text: the prompt processor, its config, and what it hands out."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from maquette.core.base import BaseObject
from maquette.core.errors import ConfigError
from maquette.diffusion.debiasing import debiased, view_probabilities
from maquette.diffusion.text import TextEncoding
from maquette.models.prompt_processors.directions import Directions, four_views, parse_directions
from maquette.models.prompt_processors.prompt_library import resolve_prompt
from maquette.models.prompt_processors.prompt_utils import PerpNeg, PromptUtils

__all__ = ["Directions", "PerpNeg", "PromptProcessor", "PromptUtils", "TextEncoding"]

KEY = "system.prompt_processor"

log = logging.getLogger(__name__)


class PromptProcessor(BaseObject):
    """Turns one prompt into embeddings for every view; all of them are made when it is configured."""

    kind: ClassVar[str] = "prompt-processor"

    @dataclass(kw_only=True)
    class Config(BaseObject.Config):
        """Options of every prompt processor."""

        prompt: str = "a hamburger"
        """What to make; "lib:two_words" is the one prompt of the shipped library with these words."""
        prompt_front: str | None = None
        """The whole text for the front, in place of the prompt with its view words."""
        prompt_side: str | None = None
        """The same for the sides."""
        prompt_back: str | None = None
        """The same for the back."""
        prompt_overhead: str | None = None
        """The same for views from above."""
        negative_prompt: str = ""
        """What to move away from; the same for every view."""
        pretrained_model_name_or_path: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
        """Whose text encoder reads the prompt: maquette/toyworld, a folder, or an id of the hub."""
        directions: Any = "default"
        """View words: "default" (side, front, back, overhead), "toyworld" (those of the embedded prior), or a
        list of {name, prompt, azimuth: [from, to], elevation: [from, to]} in degrees, later ones winning."""
        overhead_threshold: float = 60.0
        """Degrees of elevation above which a view is from overhead."""
        front_threshold: float = 45.0
        """Degrees to either side of the front."""
        back_threshold: float = 45.0
        """Degrees to either side of the back."""
        view_dependent_prompt_front: bool = False
        """Whether the view words stand before the prompt ("front view of ...")."""
        use_cache: bool = True
        """Whether embeddings are kept on disk, and the text encoder is loaded only for new prompts."""
        spawn: bool = True
        """Accepted for older recipes; prompts are encoded in this process, then the encoder is freed."""
        half_precision_weights: bool = True
        """Whether the text encoder is read in half precision on a GPU; on a CPU it is float32 always."""
        use_perp_neg: bool = False
        """Whether views that a camera does not see are negatives (Perp-Neg); needs the default directions."""
        perp_neg_f_sb: tuple[float, float, float] = (1.0, 0.5, -0.606)
        """a, b, c of a e^(-b x) + c, the weight of the side between side and back."""
        perp_neg_f_fsb: tuple[float, float, float] = (1.0, 0.5, 0.967)
        """The same for the front between side and back."""
        perp_neg_f_fs: tuple[float, float, float] = (4.0, 0.5, -2.426)
        """The same for the front between front and side."""
        perp_neg_f_sf: tuple[float, float, float] = (4.0, 0.5, -2.426)
        """The same for the side between front and side."""
        use_prompt_debiasing: bool = False
        """Whether words that contradict a view are left out of its text; needs the default directions."""
        pretrained_model_name_or_path_prompt_debiasing: str = "bert-base-uncased"
        """The masked language model that says which words do: a folder, or an id of the hub."""
        prompt_debiasing_mask_ids: list[int] | None = None
        """Positions of the words that may be left out, counted from 0; null for all."""

        def __post_init__(self) -> None:
            if not self.prompt.strip():
                raise ConfigError(f"{KEY}.prompt", self.prompt, "a description of what to make")
            for name in ("use_perp_neg", "use_prompt_debiasing"):
                if getattr(self, name) and self.directions != "default":
                    raise ConfigError(f"{KEY}.directions", self.directions, f'"default" where {name} is true')

    def configure(self) -> None:
        """Encode the prompt for every direction, and the negative prompt."""
        self.prompt = resolve_prompt(self.cfg.prompt)
        self.directions = self._parse_directions()
        self.prompts_vd = self._view_prompts()
        self.negative_prompt: str = self.cfg.negative_prompt
        rows = self.encode([self.prompt, *self.prompts_vd, self.negative_prompt, ""]).to(self.device)
        self._utils = PromptUtils(
            prompt=self.prompt,
            prompts_vd=self.prompts_vd,
            directions=self.directions,
            text=rows[:1],
            text_vd=rows[1:-2],
            uncond=rows[-2:-1],
            null=rows[-1:] if self.negative_prompt else None,
            use_perp_neg=self.cfg.use_perp_neg,
            perp_neg=self._parse_perp_neg(),
        )

    def __call__(self) -> PromptUtils | None:
        """The embeddings, ready to be asked for by camera; None where there is no text."""
        return self._utils

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> TextEncoding:
        """Embeddings of N texts, all of the same length; "" is no text at all."""

    def _parse_directions(self) -> Directions:
        cfg = self.cfg
        default = four_views(
            cfg.front_threshold, cfg.back_threshold, cfg.overhead_threshold, cfg.view_dependent_prompt_front
        )
        return parse_directions(cfg.directions, default)

    def _view_prompts(self) -> list[str]:
        prompts = self.directions.prompts(self.prompt)
        if self.cfg.use_prompt_debiasing:
            prompts = self._debiased_prompts()
        for name in ("front", "side", "back", "overhead"):
            text = self.cfg[f"prompt_{name}"]
            if text is None:
                continue
            if name not in self.directions.names:
                known = ", ".join(self.directions.names)
                raise ConfigError(f"{KEY}.prompt_{name}", text, f"no text: the directions are {known}")
            prompts[self.directions.names.index(name)] = text
        return prompts

    def _debiased_prompts(self) -> list[str]:
        words, names = self.prompt.split(), self.directions.names
        ids: list[int] | None = self.cfg.prompt_debiasing_mask_ids
        if ids is not None and not all(0 <= i < len(words) for i in ids):
            numbered = ", ".join(f"{i} {word}" for i, word in enumerate(words))
            raise ConfigError(
                f"{KEY}.prompt_debiasing_mask_ids", list(ids), f"positions of words: {numbered}"
            )
        ask = view_probabilities(self.cfg.pretrained_model_name_or_path_prompt_debiasing, names)
        found = debiased(self.prompt, len(names), ask, ids)
        prompts = [
            template.replace("{}", prompt)
            for template, prompt in zip(self.directions.templates, found, strict=True)
        ]
        log.info("Debiased prompts: %s", "; ".join(prompts))
        return prompts

    def _parse_perp_neg(self) -> PerpNeg:
        names = ("f_sb", "f_fsb", "f_fs", "f_sf")
        return PerpNeg(**{name: tuple(self.cfg[f"perp_neg_{name}"]) for name in names})

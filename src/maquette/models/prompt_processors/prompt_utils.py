"""The embeddings of one prompt, ready to be asked for by camera."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maquette.diffusion.text import TextEncoding
from maquette.models.prompt_processors.directions import Directions

Decay = tuple[float, float, float]
"""a, b, c of a e^(-b x) + c."""


@dataclass(frozen=True, kw_only=True)
class PerpNeg:
    """How strongly other views are pushed away (Perp-Neg, Armandpour et al. 2023, section 4.3)."""

    f_sb: Decay = (1.0, 0.5, -0.606)
    f_fsb: Decay = (1.0, 0.5, 0.967)
    f_fs: Decay = (4.0, 0.5, -2.426)
    f_sf: Decay = (4.0, 0.5, -2.426)


@dataclass(frozen=True, kw_only=True)
class PromptUtils:
    """Text of a prompt for every camera; angles in degrees, embeddings (tokens L, width D) or pooled (P).

    Every answer stacks the conditions first and the unconditional ones after them: [cond; uncond].
    """

    prompt: str
    prompts_vd: list[str]
    """The prompt in the words of each direction."""
    directions: Directions
    text: TextEncoding
    """Of the plain prompt, one row."""
    text_vd: TextEncoding
    """Of `prompts_vd`, a row for each direction."""
    uncond: TextEncoding
    """Of the negative prompt, one row; the same for every view."""
    null: TextEncoding | None = None
    """Of no text at all, one row; None where it is that of the negative prompt."""
    use_perp_neg: bool = False
    """Whether a guidance should ask for `get_text_embeddings_perp_neg`."""
    perp_neg: PerpNeg = field(default_factory=PerpNeg)

    def get_text_embeddings(
        self,
        elevation: Float[Tensor, "B"],
        azimuth: Float[Tensor, "B"],
        camera_distances: Float[Tensor, "B"] | None = None,
        view_dependent_prompting: bool = True,
    ) -> Float[Tensor, "2*B L D"]:
        """Embeddings for the cameras, then the unconditional ones."""
        return self.encoding(elevation, azimuth, view_dependent_prompting).hidden

    def pooled(
        self,
        elevation: Float[Tensor, "B"],
        azimuth: Float[Tensor, "B"],
        camera_distances: Float[Tensor, "B"] | None = None,
        view_dependent_prompting: bool = True,
    ) -> Float[Tensor, "2*B P"] | None:
        """Pooled embeddings in the order of `get_text_embeddings`; None where the model has none."""
        return self.encoding(elevation, azimuth, view_dependent_prompting).pooled

    def encoding(
        self,
        elevation: Float[Tensor, "B"],
        azimuth: Float[Tensor, "B"],
        view_dependent_prompting: bool = True,
    ) -> TextEncoding:
        """Both kinds of embeddings for B cameras, 2B rows [cond; uncond]."""
        row = torch.zeros(len(azimuth), dtype=torch.long, device=self.uncond.hidden.device)
        if view_dependent_prompting:
            cond = self.text_vd[self.directions.index(elevation, azimuth).to(row.device)]
        else:
            cond = self.text[row]
        return TextEncoding.cat([cond, self.uncond[row]])

    def get_text_embeddings_perp_neg(
        self,
        elevation: Float[Tensor, "B"],
        azimuth: Float[Tensor, "B"],
        camera_distances: Float[Tensor, "B"] | None = None,
        view_dependent_prompting: bool = True,
    ) -> tuple[Float[Tensor, "4*B L D"], Float[Tensor, "B 2"]]:
        """Embeddings and the negatives' weights; see `encoding_perp_neg`."""
        encoding, weights = self.encoding_perp_neg(elevation, azimuth)
        return encoding.hidden, weights

    def encoding_perp_neg(
        self, elevation: Float[Tensor, "B"], azimuth: Float[Tensor, "B"]
    ) -> tuple[TextEncoding, Float[Tensor, "B 2"]]:
        """4B rows [cond B; uncond B; negatives 2B, each sample's two together], and the negatives' weights.

        Between two views the condition is a mixture of theirs. The negatives are front and side before the
        side, side and front behind it (the back itself is never pushed away); from above there are none.
        """
        device = self.uncond.hidden.device
        overhead = self.directions.index(elevation, azimuth).to(device) == self._view("overhead")
        angle = (torch.remainder(azimuth.to(device) + 180.0, 360.0) - 180.0).abs()
        ahead = angle < 90.0
        share = torch.where(ahead, 1.0 - angle / 90.0, 2.0 - angle / 90.0)
        first = torch.where(ahead, self._view("front"), self._view("side"))
        second = torch.where(ahead, self._view("side"), self._view("back"))
        cond = _mixed(self.text_vd[first], self.text_vd[second], share)
        cond = _chosen(overhead, self.text_vd[torch.full_like(first, self._view("overhead"))], cond)
        uncond = self.uncond[torch.zeros_like(first)]
        pushed = torch.where(ahead, self._view("side"), self._view("front"))
        negatives = self.text_vd[torch.stack([first, pushed], dim=1).flatten()]
        weights = self._weights(ahead, share) * ~overhead[:, None]
        return TextEncoding.cat([cond, uncond, negatives]), weights

    def _weights(self, ahead: Tensor, share: Tensor) -> Float[Tensor, "B 2"]:
        one = self.perp_neg
        front = torch.stack([_decay(one.f_fs, share), _decay(one.f_sf, 1.0 - share)], dim=1)
        back = torch.stack([_decay(one.f_sb, share), _decay(one.f_fsb, share)], dim=1)
        return -torch.where(ahead[:, None], front, back)

    def _view(self, name: str) -> int:
        return self.directions.names.index(name)


def _decay(parameters: Decay, x: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    a, b, c = parameters
    return a * torch.exp(-b * x) + c


def _mixed(one: TextEncoding, other: TextEncoding, share: Float[Tensor, "B"]) -> TextEncoding:
    """share * one + (1 - share) * other, row by row."""
    hidden = torch.lerp(other.hidden, one.hidden, share.to(one.hidden)[:, None, None])
    if one.pooled is None or other.pooled is None:
        return TextEncoding(hidden)
    return TextEncoding(hidden, torch.lerp(other.pooled, one.pooled, share.to(one.pooled)[:, None]))


def _chosen(mask: Bool[Tensor, "B"], one: TextEncoding, other: TextEncoding) -> TextEncoding:
    """Rows of `one` where the mask holds, of `other` elsewhere."""
    hidden = torch.where(mask[:, None, None], one.hidden, other.hidden)
    if one.pooled is None or other.pooled is None:
        return TextEncoding(hidden)
    return TextEncoding(hidden, torch.where(mask[:, None], one.pooled, other.pooled))

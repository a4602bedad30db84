"""Prompt-to-Prompt: one picture's attention carried over to another prompt (Hertz et al. 2022).

Both pictures are denoised side by side in one batch. While the control is entered, rows of the target look
where the rows of the source look, as far as their words have a counterpart; so what the edit does not name
stays where it is. Whoever samples sets `progress` before each call of the UNet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from maquette.core.errors import ConfigError
from maquette.diffusion.attention import AttentionCapture, AttentionControl, AttentionMaps
from maquette.diffusion.word_alignment import Alignment, token_indices

Pair = tuple[int, int]
"""A row of the batch that is looked at, and the row that is made to look like it."""


@dataclass(kw_only=True)
class EditOptions:
    """How much of the source's attention the target takes over."""

    cross_until: float = 0.8
    """Cross-attention is carried over in this first share of the denoising."""
    self_until: float = 0.4
    """Self-attention likewise: it holds the layout."""
    self_max_side: int = 16
    """Only maps of at most this many places a side take part in that."""
    reweight: Mapping[str, float] = field(default_factory=dict)
    """Words of the target whose attention is multiplied: above 1 stronger, below 1 weaker."""

    def __post_init__(self) -> None:
        for name in ("cross_until", "self_until"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"edit.{name}", getattr(self, name), "a number from 0 to 1")
        if self.self_max_side < 1:
            raise ConfigError("edit.self_max_side", self.self_max_side, "an integer above 0")


class PromptToPrompt(AttentionControl):
    """Replaces, refines and re-weights the attention of some rows of a batch after that of others.

    Args:
        unet: the model.
        alignment: of the two prompts (`align_prompts`; with `replace` words are swapped, without refined);
            one for all pairs, or one for each.
        pairs: (source row, target row) in the batch that the UNet is given, the conditional rows of each.
        options: how much, and for how long.
        tokenizer: finds the words of `options.reweight`; not needed without them.

    Raises:
        UserError: a word to re-weight is not in the target prompt.
    """

    def __init__(
        self,
        unet: nn.Module,
        alignment: Alignment | Sequence[Alignment],
        pairs: Sequence[Pair],
        options: EditOptions | None = None,
        tokenizer: Any = None,
    ) -> None:
        super().__init__(unet, self._edit)
        self.options = options or EditOptions()
        self.progress: float | Float[Tensor, "P"] = 0.0
        """Share of the denoising that is done, 0 to 1; one for all pairs, or one for each."""
        self._sources = [source for source, _ in pairs]
        self._targets = [target for _, target in pairs]
        alignments = [alignment] if isinstance(alignment, Alignment) else list(alignment)
        self._mapper = torch.stack([one.mapper for one in alignments])[:, None]
        self._kept = torch.stack([one.kept for one in alignments])[:, None, None]
        self._weights = torch.ones_like(self._kept)
        for word, weight in self.options.reweight.items():
            for row, one in enumerate(alignments):
                self._weights[row, ..., token_indices(tokenizer, one.target, word)] = weight

    def _edit(self, maps: AttentionMaps) -> Float[Tensor, "B heads Q K"]:
        edited = self._cross(maps) if maps.site.kind == "cross" else self._self(maps)
        if edited is None:
            return maps.probabilities
        out = maps.probabilities.clone()
        out[self._targets] = edited
        return out

    def _cross(self, maps: AttentionMaps) -> Tensor | None:
        active = self._early(self.options.cross_until)
        if not (self.options.reweight or bool(active.any())):
            return None
        own = maps.probabilities[self._targets]
        kept = self._kept.to(own) * active.to(own)
        carried = maps.probabilities[self._sources] @ self._mapper.to(own)
        return (kept * carried + (1.0 - kept) * own) * self._weights.to(own)

    def _self(self, maps: AttentionMaps) -> Tensor | None:
        active = self._early(self.options.self_until)
        if maps.side > self.options.self_max_side or not bool(active.any()):
            return None
        own, source = maps.probabilities[self._targets], maps.probabilities[self._sources]
        return torch.where(active.to(own.device), source, own)

    def _early(self, share: float) -> Bool[Tensor, "*P 1 1 1"]:
        """Which pairs have not passed this share of the denoising."""
        return (torch.as_tensor(self.progress) < share)[..., None, None, None]


class LocalBlend:
    """Keeps the source's latents where neither picture shows the words of the edit (section 4 of the paper).

    Args:
        capture: cross-attention of both pictures' conditional rows, entered along with the control.
        columns: tokens of the source's words and of the target's words.
        rows: conditional rows of source and target in what `capture` keeps.
        threshold: share of a map's largest value above which a place belongs to the words.
    """

    def __init__(
        self,
        capture: AttentionCapture,
        columns: tuple[Sequence[int], Sequence[int]],
        rows: Pair,
        threshold: float = 0.3,
    ) -> None:
        self.capture, self.columns, self.rows, self.threshold = capture, columns, rows, threshold

    def mask(self, size: int) -> Float[Tensor, "size size"]:
        """1 where the words are, in either picture, by all attention captured so far; grown by a place."""
        maps = self.capture.average(size)
        shown = [
            maps[row, list(columns)].sum(0) for row, columns in zip(self.rows, self.columns, strict=True)
        ]
        inside = torch.stack([one / one.max().clamp_min(1e-12) > self.threshold for one in shown]).any(0)
        return F.max_pool2d(inside[None, None].float(), 3, 1, 1)[0, 0]

    def __call__(
        self, source: Float[Tensor, "C h w"], target: Float[Tensor, "C h w"]
    ) -> Float[Tensor, "C h w"]:
        """The target's latents inside the words' places, the source's elsewhere."""
        mask = self.mask(target.shape[-1]).to(target)
        return torch.lerp(source, target, mask)

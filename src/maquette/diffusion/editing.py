"""A picture and its edited twin, denoised side by side under attention control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.device import current_device
from maquette.core.random import RandomStreams
from maquette.diffusion import score
from maquette.diffusion.attention import AttentionCapture
from maquette.diffusion.denoiser import LatentDenoiser, own_denoiser
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.prompt_to_prompt import EditOptions, LocalBlend, PromptToPrompt
from maquette.diffusion.text import TextEncoding, empty_is_zero, encode_prompts
from maquette.diffusion.word_alignment import align_prompts, token_indices, word_spans

SOURCE, TARGET = 2, 3
"""Conditional rows of the batch [uncond, uncond, source, target]."""


@dataclass(frozen=True, kw_only=True)
class PictureEdit:
    """What is asked of an edit in two dimensions."""

    model: str
    """As for `load_pipeline`."""
    source: str
    """The prompt of the first picture."""
    target: str
    """The prompt of the second one."""
    replace: bool = True
    """Whether exchanged words take over the attention of those in their place."""
    options: EditOptions = field(default_factory=EditOptions)
    """How much attention is carried over."""
    blend: tuple[Sequence[str], Sequence[str]] | None = None
    """Words of the source and of the target outside of whose places the picture stays as it was."""
    guidance_scale: float = 7.5
    """s of classifier-free guidance."""
    steps: int = 25
    """Denoising steps."""
    seed: int = 0
    """Of the noise that both pictures begin with."""


@dataclass(frozen=True, kw_only=True)
class EditedPictures:
    """Pictures (H, W, 3) in [0, 1], and where each word was."""

    before: Float[Tensor, "H W 3"]
    """Of the source prompt."""
    after: Float[Tensor, "H W 3"]
    """Of the target prompt, under control."""
    without_control: Float[Tensor, "H W 3"]
    """Of the target prompt from the same noise, left alone."""
    maps_before: dict[str, Float[Tensor, "S S"]]
    """Cross-attention of each word of the source, averaged over the denoising."""
    maps_after: dict[str, Float[Tensor, "S S"]]
    """The same for the target under control."""


@torch.no_grad()
def edit_pictures(edit: PictureEdit, progress: Callable[[int, int], None] | None = None) -> EditedPictures:
    """Denoise the source and the target from one noise, with and without control (DDIM).

    Args:
        edit: what is asked for.
        progress: told the number of steps done and their total.

    Raises:
        UserError: a word is not in its prompt; ModelUnavailableError as `load_pipeline`.
    """
    denoiser = own_denoiser(edit.model, torch.float32, current_device())
    tokenizer = load_pipeline(edit.model, parts=("tokenizer",)).tokenizer
    text = _encoded(edit).to(denoiser.device)
    run = _Run(edit, denoiser, text, progress or (lambda done, total: None))
    alignment = align_prompts(tokenizer, edit.source, edit.target, edit.replace)
    plain = run.pictures()
    with ExitStack() as stack:
        control = stack.enter_context(
            PromptToPrompt(denoiser.unet, alignment, [(SOURCE, TARGET)], edit.options, tokenizer)
        )
        seen = stack.enter_context(AttentionCapture(denoiser.unet, mean_heads=True, rows=slice(SOURCE, None)))
        before, after = run.pictures(control, _blend(edit, seen, tokenizer))
    maps = seen.average()
    return EditedPictures(
        before=before,
        after=after,
        without_control=plain[1],
        maps_before=_word_maps(tokenizer, edit.source, maps[0]),
        maps_after=_word_maps(tokenizer, edit.target, maps[1]),
    )


@dataclass(frozen=True)
class _Run:
    """One denoising of both pictures."""

    edit: PictureEdit
    denoiser: LatentDenoiser
    text: TextEncoding
    progress: Callable[[int, int], None]

    def pictures(
        self, control: PromptToPrompt | None = None, blend: LocalBlend | None = None
    ) -> tuple[Tensor, Tensor]:
        levels = self._levels()
        x = self._noise()
        passed = 0 if control is None else self.edit.steps
        for done, (t, following) in enumerate(pairwise(levels)):
            if control is not None:
                control.progress = done / self.edit.steps
            x = self._step(x, t, following)
            if blend is not None:
                x = torch.stack([x[0], blend(x[0], x[1])])
            self.progress(passed + done + 1, 2 * self.edit.steps)
        images = self.denoiser.decode(x).clamp(0.0, 1.0).permute(0, 2, 3, 1).cpu()
        return images[0], images[1]

    def _step(self, x: Tensor, t: int, following: int) -> Tensor:
        level = torch.full((4,), t, device=x.device)
        eps = self.denoiser.predict_noise(x.repeat(2, 1, 1, 1), level, self.text.hidden, self.text.pooled)
        guided = score.classifier_free(eps[:2], eps[2:], self.edit.guidance_scale)
        alphas = self.denoiser.alphas_cumprod
        return score.ddim_step(x, guided, alphas[t].expand(2), alphas[following].expand(2))

    def _noise(self) -> Tensor:
        side, channels = self.denoiser.latent_size, self.denoiser.latent_channels
        drawn = RandomStreams(self.edit.seed).at(0, [0]).normal("editing/noise", channels, side, side)
        return drawn.repeat(2, 1, 1, 1).to(self.denoiser.device)

    def _levels(self) -> list[int]:
        last = self.denoiser.num_train_timesteps - 1
        return [last * (self.edit.steps - i) // self.edit.steps for i in range(self.edit.steps + 1)]


def _encoded(edit: PictureEdit) -> TextEncoding:
    """Rows of no text twice, the source and the target; no text is zeros for a model that was trained so."""
    text = encode_prompts(edit.model, ["", "", edit.source, edit.target])
    if not empty_is_zero(edit.model):
        return text
    return TextEncoding.cat([text[:SOURCE].zeros(), text[SOURCE:]])


def _blend(edit: PictureEdit, seen: AttentionCapture, tokenizer: object) -> LocalBlend | None:
    if edit.blend is None:
        return None
    columns = (
        token_indices(tokenizer, edit.source, edit.blend[0]),
        token_indices(tokenizer, edit.target, edit.blend[1]),
    )
    return LocalBlend(seen, columns, rows=(0, 1))


def _word_maps(tokenizer: object, prompt: str, maps: Float[Tensor, "K S S"]) -> dict[str, Tensor]:
    spans = word_spans(tokenizer, prompt)
    return {word: maps[first:last].sum(0) for word, (first, last) in spans if word.isalnum()}

"""Prompts longer than a text encoder: read in several windows, whose tokens then stand side by side."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from maquette.diffusion.load import load_pipeline
from maquette.diffusion.text import TextEncoding, encode_prompts

log = logging.getLogger(__name__)

LONGEST: Final = 77
"""Tokens that pipelines let a text encoder read, even where its tokenizer names no limit of its own."""

PUNCTUATION: Final = ",.;:!?"


def encode_windows(model: str, prompts: Sequence[str], **options: Any) -> TextEncoding:
    """Embeddings of `prompts` (N of them, in order), all of the same length, whatever theirs.

    A prompt that does not fit into the encoder is cut between words (`windows`), each window is encoded by
    itself, and their tokens are concatenated: L is as many times the encoder's length as the longest of
    the prompts has windows, and shorter ones end with windows of empty text, as is usual for these models.
    A pooled vector is that of the first window. Where all prompts fit, this is `encode_prompts`.

    Args:
        model: as for `encode_prompts`.
        prompts: those that will be used together, the negative one among them.
        options: of `encode_prompts`.

    Raises:
        ModelUnavailableError, UserError: as `load_pipeline`.
    """
    tokenizer = load_pipeline(model, parts=("tokenizer",)).tokenizer
    cut = [windows(tokenizer, prompt) for prompt in prompts]
    count = max(map(len, cut))
    if count > 1:
        log.info("The longest prompt does not fit into the text encoder, and is read in %d windows.", count)
    texts = [text for parts in cut for text in (*parts, *[""] * (count - len(parts)))]
    found = encode_prompts(model, texts, **options)
    hidden = found.hidden.unflatten(0, (len(prompts), count)).flatten(1, 2)
    return TextEncoding(hidden, None if found.pooled is None else found.pooled[::count])


def windows(tokenizer: Any, prompt: str) -> list[str]:
    """A prompt in parts that fit into the encoder, cut between words, behind punctuation where some is near.

    A prompt that fits is the only part, as it is; a word that does not fit is a part by itself.
    """
    room = min(tokenizer.model_max_length, LONGEST) - tokenizer.num_special_tokens_to_add()

    def fits(text: str) -> bool:
        return len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids) <= room

    if fits(prompt):
        return [prompt]
    words, parts = prompt.split(), []
    while words:
        count = _fitting(words, fits)
        parts.append(" ".join(words[:count]))
        words = words[count:]
    return parts


def _fitting(words: Sequence[str], fits: Any) -> int:
    """How many of the words make up the next part: as many as fit, fewer if a clause ends in the last
    quarter of them."""
    count = 1
    while count < len(words) and fits(" ".join(words[: count + 1])):
        count += 1
    if count == len(words):
        return count
    ends = (end for end in range(count, count * 3 // 4, -1) if words[end - 1][-1] in PUNCTUATION)
    return next(ends, count)

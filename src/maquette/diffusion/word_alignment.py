"""Which words, and so which tokens, of one prompt stand for which of another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import UserError

WORD = re.compile(r"\w+|[^\w\s]")
Span = tuple[int, int]
"""First token and one past the last."""


@dataclass(frozen=True)
class Alignment:
    """How the columns of one prompt's attention become those of another's; K tokens each, with padding."""

    source: str
    target: str
    mapper: Float[Tensor, "K K"]
    """Row: token of the source, column: token of the target; rows with a counterpart sum to one."""
    kept: Float[Tensor, "K"]
    """1 for tokens of the target that have a counterpart in the source, 0 for what is new."""
    removed: list[int] = field(default_factory=list)
    """Tokens of the source's words that the target does not have, also where another took their place."""
    added: list[int] = field(default_factory=list)
    """Tokens of the target's words that the source does not have."""

    def carried(self, probabilities: Float[Tensor, "*N K"]) -> Float[Tensor, "*N K"]:
        """The source's attention in the places of the target's tokens."""
        return probabilities @ self.mapper.to(probabilities)


def align_prompts(tokenizer: Any, source: str, target: str, replace: bool = True) -> Alignment:
    """Align two prompts word by word (Prompt-to-Prompt, Hertz et al. 2022, section 3.2).

    Words that are the same stand for each other. Where as many words were exchanged as were there, each also
    stands for the one in its place if `replace` (the paper's word swap); otherwise, and where words were
    added, they are new (the paper's refinement). Special tokens and padding stand for those in their place.

    Args:
        tokenizer: a fast tokenizer, which knows where its tokens come from.
        source: the prompt of the attention that is given.
        target: the prompt of the attention that is wanted.
        replace: whether exchanged words stand for each other.
    """
    length = tokenizer.model_max_length
    before, after = _without_gaps(word_spans(tokenizer, source)), _without_gaps(word_spans(tokenizer, target))
    mapper = torch.zeros(length, length)
    pairs = _pairs([word for word, _ in before], [word for word, _ in after], replace)
    for i, j in pairs:
        (a, b), (c, d) = before[i][1], after[j][1]
        mapper[a:b, c:d] = 1.0 / (d - c)
        if b - a == d - c:
            mapper[a:b, c:d] = torch.eye(b - a)
    _map_the_rest(mapper, before, after)
    gone, new = _changes([word for word, _ in before], [word for word, _ in after])
    removed = [token for row in gone for token in range(*before[row][1])]
    added = [token for row in new for token in range(*after[row][1])]
    return Alignment(source, target, mapper, (mapper.sum(0) > 0).float(), removed, added)


def changed_words(source: str, target: str) -> tuple[list[str], list[str]]:
    """The words, in lower case, that only one of two prompts has in its place: the source's, the target's."""
    before, after = (WORD.findall(prompt.lower()) for prompt in (source, target))
    gone, new = _changes(before, after)
    return [before[row] for row in gone], [after[row] for row in new]


def token_indices(tokenizer: Any, prompt: str, words: str | Sequence[str]) -> list[int]:
    """Where the tokens of some words are in a prompt; a word that stands there twice counts twice.

    Raises:
        UserError: the prompt does not have a word.
    """
    wanted = [words] if isinstance(words, str) else list(words)
    spans = word_spans(tokenizer, prompt)
    found: list[int] = []
    for phrase in wanted:
        for word in WORD.findall(phrase.lower()):
            here = [span for name, span in spans if name == word]
            if not here:
                known = ", ".join(dict.fromkeys(name for name, _ in spans if name.isalnum()))
                raise UserError(f"The prompt does not have the word {word!r}.", [f"its words: {known}"])
            found += [index for first, last in here for index in range(first, last)]
    return sorted(set(found))


def word_spans(tokenizer: Any, prompt: str) -> list[tuple[str, Span]]:
    """The words of a prompt in lower case, each with the tokens it became; what was cut off is left out."""
    encoded = tokenizer(
        prompt, truncation=True, max_length=tokenizer.model_max_length, return_offsets_mapping=True
    )
    offsets = [tuple(one) for one in encoded["offset_mapping"]]
    spans = []
    for match in WORD.finditer(prompt):
        inside = [
            index
            for index, (first, last) in enumerate(offsets)
            if last > first and first < match.end() and last > match.start()
        ]
        if inside:
            spans.append((match.group().lower(), (inside[0], inside[-1] + 1)))
    return spans


def _without_gaps(words: list[tuple[str, Span]]) -> list[tuple[str, Span]]:
    """Tokens between two words (spaces, for some tokenizers) count to the second of them."""
    ends = [words[0][1][0] if words else 0, *(last for _, (_, last) in words)]
    return [(word, (end, last)) for (word, (_, last)), end in zip(words, ends[:-1], strict=True)]


def _pairs(before: list[str], after: list[str], replace: bool) -> list[tuple[int, int]]:
    """Words that stand for each other, as indices."""
    pairs: list[tuple[int, int]] = []
    for kind, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal" or (kind == "replace" and replace and b - a == d - c):
            pairs += zip(range(a, b), range(c, d), strict=True)
    return pairs


def _changes(before: list[str], after: list[str]) -> tuple[list[int], list[int]]:
    """Words without an equal in the other prompt, as indices."""
    same = _pairs(before, after, replace=False)
    return (
        [row for row in range(len(before)) if row not in {i for i, _ in same}],
        [row for row in range(len(after)) if row not in {j for _, j in same}],
    )


def _map_the_rest(mapper: Tensor, before: list[tuple[str, Span]], after: list[tuple[str, Span]]) -> None:
    """Beginning to beginning, and what follows the last word (end of text, padding) to the same."""
    first_before, last_before = _edges(before)
    first_after, last_after = _edges(after)
    begins = min(first_before, first_after)
    ends = len(mapper) - max(last_before, last_after)
    for index in range(begins):
        mapper[index, index] = 1.0
    for offset in range(ends):
        mapper[last_before + offset, last_after + offset] = 1.0
    # The longer tail of padding has more places than the other: its last ones share the other's last place.
    mapper[last_before + ends :, -1] = 1.0


def _edges(words: list[tuple[str, Span]]) -> Span:
    """First token of the first word and one past the last of the last."""
    return (words[0][1][0], words[-1][1][1]) if words else (1, 1)

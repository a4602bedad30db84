"""Words that a text encoder has not learned: their tokens, embeddings that train, and the file of them.

A new word is one token with an embedding of its own (textual inversion, Gal et al. 2023, section 3). The file
maps words to embeddings, as diffusers writes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from maquette.core.errors import UserError
from maquette.core.paths import atomic_path
from maquette.diffusion.vocabulary import unknown_words

WORDS_FILE: Final = "learned_embeds.safetensors"
"""The name by which diffusers' `load_textual_inversion` finds the file in a folder."""

PLACEHOLDER: Final = re.compile(r"<[^<>\s]+>")


def placeholders(texts: Sequence[str]) -> list[str]:
    """The words in angle brackets, such as <new1>, of some texts, each once."""
    return list(dict.fromkeys(word for text in texts for word in PLACEHOLDER.findall(text)))


class WordTable(nn.Module):
    """The embedding table of a text encoder of which the rows of some words train.

    Args:
        table: stays as it is.
        ids: the tokens of K words; they may lie behind the end of the table.
        rows: what these words begin with.
    """

    ids: Tensor

    def __init__(self, table: nn.Embedding, ids: Sequence[int], rows: Float[Tensor, "K D"]) -> None:
        super().__init__()
        self.table = table
        self.rows = nn.Parameter(rows.clone())
        self.register_buffer("ids", torch.tensor(ids, device=rows.device), persistent=False)

    def forward(self, tokens: Int[Tensor, "*B L"]) -> Float[Tensor, "*B L D"]:
        """The embedding of each token."""
        known = self.table(tokens.clamp_max(self.table.num_embeddings - 1))
        match = tokens[..., None] == self.ids
        learned = match.to(self.rows.dtype) @ self.rows
        return torch.where(match.any(-1, keepdim=True), learned.to(known.dtype), known)


def learn_words(tokenizer: Any, encoder: Any, words: Mapping[str, str]) -> WordTable:
    """Put a `WordTable` into a text encoder.

    Args:
        tokenizer: learns the words too.
        encoder: of transformers.
        words: each new word, and known ones with whose mean embedding it begins.

    Raises:
        UserError: a word that something begins with is not known either, or a new word is a mark of the
            tokenizer's own.
    """
    table = encoder.get_input_embeddings()
    rows = torch.stack([mean_embedding(tokenizer, table, meaning) for meaning in words.values()])
    learned = WordTable(table, [_token(tokenizer, word) for word in words], rows)
    encoder.set_input_embeddings(learned)
    return learned


@torch.no_grad()
def mean_embedding(tokenizer: Any, table: nn.Embedding, text: str) -> Float[Tensor, "D"]:
    """The mean embedding of the tokens of a text.

    Raises:
        UserError: the text is empty, or the tokenizer does not know a word of it.
    """
    ids = tokenizer(text, add_special_tokens=False).input_ids
    strange = unknown_words(tokenizer, text)
    if strange or not ids:
        raise UserError(
            f"A new word cannot begin with {text!r}: the text encoder does not know it.",
            hint="give a common word for what the pictures show",
        )
    return table.weight[torch.tensor(ids, device=table.weight.device)].mean(0)


@torch.no_grad()
def add_words(tokenizer: Any, encoder: Any, rows: Mapping[str, Float[Tensor, "D"]]) -> None:
    """Give words these embeddings for good; the table grows where it has to.

    Raises:
        UserError: the embeddings are of another width, so of another model.
    """
    ids = [_token(tokenizer, word) for word in rows]
    table = encoder.get_input_embeddings()
    if ids and max(ids) >= table.num_embeddings:
        encoder.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
        table = encoder.get_input_embeddings()
    for number, (word, row) in zip(ids, rows.items(), strict=True):
        if row.shape[-1] != table.embedding_dim:
            raise UserError(
                f"The word {word} was learned for another model.",
                [f"its embedding has {row.shape[-1]} numbers, those of this one {table.embedding_dim}"],
            )
        table.weight[number] = row.to(table.weight)


def save_words(path: Path, rows: Mapping[str, Float[Tensor, "D"]]) -> Path:
    """Write words and their embeddings."""
    with atomic_path(path) as temporary:
        save_file({word: row.detach().cpu().contiguous().clone() for word, row in rows.items()}, temporary)
    return path


def read_words(path: Path) -> dict[str, Float[Tensor, "D"]]:
    """The embeddings of a file by their words; also a file of one word that diffusers wrote.

    Raises:
        UserError: the file is damaged, or a word has several embeddings.
    """
    try:
        found = {word: row.squeeze(0) if row.ndim == 2 else row for word, row in load_file(path).items()}
    except (OSError, SafetensorError) as err:
        raise UserError(
            f"The learned words {path} are damaged and cannot be read.", [str(err)[:200]]
        ) from err
    strange = [word for word, row in found.items() if row.ndim != 1]
    if strange:
        raise UserError(f"The word {strange[0]} of {path} has several embeddings, which is not supported.")
    return found


def _token(tokenizer: Any, word: str) -> int:
    """The token of a word, which the tokenizer learns if it has to."""
    from tokenizers import AddedToken

    own = (tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
    if word in own:
        raise UserError(
            f"{word} cannot be a new word: it is a mark of the tokenizer's own.", hint="use <new1>"
        )
    if word not in tokenizer.get_vocab():
        tokenizer.add_tokens([AddedToken(word, normalized=False)])
    return int(tokenizer.convert_tokens_to_ids(word))

"""A small language model of captions, in the classes of transformers, so that its `pipeline` runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from transformers.utils import logging

from maquette.core.collectives import mean_over_processes
from maquette.diffusion.embedded import END, PAD, START, UNKNOWN

IGNORED = -100
"""The label of places that are not to be guessed."""


def build_caption_tokenizer(words: Iterable[str], max_tokens: int) -> PreTrainedTokenizerFast:
    """Word-level tokenizer; a text begins with `<s>`, and its end is left open, to be written on."""
    known = sorted({*words, ",", "."} - {""})
    vocabulary = {word: index for index, word in enumerate((PAD, UNKNOWN, START, END, *known))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, vocabulary[START])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        pad_token=PAD,
        model_max_length=max_tokens,
    )


def build_caption_model(
    tokenizer: PreTrainedTokenizerFast, width: int, layers: int, heads: int
) -> GPT2LMHeadModel:
    """A causal Transformer (Radford et al. 2019, "Language models are unsupervised multitask learners")."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=tokenizer.model_max_length,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=0.0,  # dropout draws from the global generator: a resumed run would not be the same
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return GPT2LMHeadModel(config)


def tokenize_captions(
    tokenizer: PreTrainedTokenizerFast, captions: Sequence[str]
) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Token ids of whole captions, `</s>` included, padded to the longest; and what counts: 1, or 0."""
    limit = tokenizer.model_max_length
    rows = [[*ids[: limit - 1], tokenizer.eos_token_id] for ids in tokenizer(list(captions)).input_ids]
    length = max(map(len, rows))
    padded = [row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows]
    counts = [[1] * len(row) + [0] * (length - len(row)) for row in rows]
    return torch.tensor(padded), torch.tensor(counts)


def next_token_loss(
    model: nn.Module, ids: Int[Tensor, "B T"], counts: Int[Tensor, "B T"], smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Mean cross entropy, in nats a token, of each token given those before it."""
    logits = model(input_ids=ids, attention_mask=counts, use_cache=False).logits[:, :-1]
    labels = ids[:, 1:].masked_fill(counts[:, 1:] == 0, IGNORED)
    total = F.cross_entropy(
        logits.flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORED,
        label_smoothing=smoothing,
        reduction="sum",
    )
    return mean_over_processes(total, (labels != IGNORED).sum())


@torch.no_grad()
def complete(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, beginnings: Sequence[str]
) -> list[str]:
    """Each beginning written on with the likeliest words, until the model ends it or has no room."""
    texts = []
    for beginning in beginnings:
        ids = torch.tensor([tokenizer(beginning).input_ids], device=model.device)
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_length=tokenizer.model_max_length,
            do_sample=False,
        )
        texts.append(tokenizer.decode(found[0], skip_special_tokens=True))
    return texts


def save_caption_model(folder: Path, model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the folder that `transformers.pipeline("text-generation", model=folder)` takes."""
    with _no_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_caption_model(folder: Path) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """What `save_caption_model` wrote."""
    with _no_bars():
        model = GPT2LMHeadModel.from_pretrained(folder, local_files_only=True)
    return model, PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without the library's progress bars, which are for larger models."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()

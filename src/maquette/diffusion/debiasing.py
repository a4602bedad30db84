"""Prompts without the words that contradict a view, found by a masked language model.

Hong, Ahn and Kim 2023, "Debiasing Scores and Prompts of 2D Diffusion for View-consistent Text-to-3D
Generation": a word like "smiling" makes a picture of the front likely, and pulls a face onto the back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from maquette.core.errors import ModelUnavailableError, UserError
from maquette.diffusion.hub import fetch_network, looks_like_path

log = logging.getLogger(__name__)

SENTENCE: Final = "This image is depicting a {mask} view of {prompt}"
"""What the language model completes; the answer to the mask is a view."""

LEAST: Final = 0.95
"""A word goes from a view that it makes less likely than this ratio."""

Probabilities = Callable[[Sequence[str]], Float[Tensor, "N V"]]
"""How likely each of the V views is for each of N prompts; rows sum to one."""


def debiased(
    prompt: str, views: int, probabilities: Probabilities, words: Sequence[int] | None = None
) -> list[str]:
    """The prompt for each of `views` views, without the words that make that view less likely.

    With p(v) the probability of view v for the whole prompt and p_w(v) that without word w, w is dropped
    from v where p(v) / ((p(v) + p_w(v)) / 2) < 0.95. A view that would lose every word keeps them all.

    Args:
        prompt: its words are what spaces separate.
        views: how many.
        probabilities: asked once, for the prompt and for each of its shortened forms.
        words: positions of the words that may go; all by default.
    """
    given = prompt.split()
    candidates = list(range(len(given)) if words is None else dict.fromkeys(words))
    shortened = [" ".join(given[:i] + given[i + 1 :]) for i in candidates]
    whole, *parts = probabilities([" ".join(given), *shortened])
    dropped: list[set[int]] = [set() for _ in range(views)]
    for i, part in zip(candidates, parts, strict=True):
        for view in range(views):
            if whole[view] < LEAST * (whole[view] + part[view]) / 2:
                dropped[view].add(i)
    return [_without(given, gone) for gone in dropped]


def view_probabilities(model: str, views: Sequence[str]) -> Probabilities:
    """What a masked language model thinks of views, in the sentence `SENTENCE`.

    Args:
        model: a folder or an id of the hub, such as bert-base-uncased.
        views: words, each of which is one token of the model.

    Raises:
        ModelUnavailableError: the model is not there.
        UserError: it is damaged, no masked language model, or does not know a view by one token.
    """
    tokenizer, network = _load(model)
    ids = [_token(tokenizer, view, model) for view in views]

    @torch.no_grad()
    def probabilities(prompts: Sequence[str]) -> Float[Tensor, "N V"]:
        texts = [SENTENCE.format(mask=tokenizer.mask_token, prompt=prompt) for prompt in prompts]
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        row, column = (tokens.input_ids == tokenizer.mask_token_id).nonzero(as_tuple=True)
        first = torch.stack([column[row == i][0] for i in range(len(texts))])
        logits = network(**tokens).logits[torch.arange(len(texts)), first]
        return logits[:, ids].double().softmax(-1)

    return probabilities


def _without(words: Sequence[str], gone: set[int]) -> str:
    if len(gone) == len(words):
        log.warning("Debiasing would leave no word of the prompt for one of the views; it keeps them all.")
        gone = set()
    return " ".join(word for i, word in enumerate(words) if i not in gone)


def _load(model: str) -> tuple[Any, Any]:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    folder = _folder(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as err:
        reason = (str(err).splitlines() or [""])[0][:200]
        raise UserError(
            f"The language model {model} cannot be read.",
            [f"{type(err).__name__}: {reason}"],
            "give a masked language model in the layout of transformers, such as bert-base-uncased",
        ) from err
    if tokenizer.mask_token_id is None:
        raise UserError(f"The language model {model} has no mask token; one like BERT is needed.")
    return tokenizer, network.eval().requires_grad_(False)


def _folder(model: str) -> Path:
    folder = Path(model).expanduser()
    if model and folder.is_dir():
        return folder
    others = ["the folder of a masked language model", "no debiasing (use_prompt_debiasing=false)"]
    if looks_like_path(model):
        raise ModelUnavailableError(model, "there is no such folder", others)
    try:
        return fetch_network(model)
    except ModelUnavailableError as err:
        raise ModelUnavailableError(model, err.reason, others) from err


def _token(tokenizer: Any, view: str, model: str) -> int:
    ids = tokenizer(f" {view}", add_special_tokens=False).input_ids
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise UserError(
            f"The language model {model} does not know the view {view!r} as one word.",
            hint="use another model, or the default directions",
        )
    return int(ids[0])

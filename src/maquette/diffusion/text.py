"""From prompts to embeddings: encoding, what the encoder does not understand, and the cache on disk."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Final

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from maquette.core.device import release_memory
from maquette.core.paths import EMBEDDED_PRIOR, atomic_path, cache_dir
from maquette.diffusion.adapted_text import adapt_text, fingerprint
from maquette.diffusion.load import TEXT_PARTS, is_random, load_pipeline, model_folder
from maquette.diffusion.lora import LoRAFile
from maquette.diffusion.memory import NOTHING, Memory, placed
from maquette.diffusion.single_file import is_single_file
from maquette.diffusion.vocabulary import unknown_words

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

log = logging.getLogger(__name__)

BATCH: Final = 16
"""Prompts that are encoded at once."""

SMALL_VOCABULARY: Final = 2000
"""Up to this many words a tokenizer's whole vocabulary is worth reading."""

SHOWN_CHARACTERS: Final = 200
"""Characters of a prompt that a warning repeats."""


@dataclass(frozen=True)
class TextEncoding:
    """Embeddings of N prompts, of L tokens each."""

    hidden: Float[Tensor, "N L D"]
    """For the cross-attention."""
    pooled: Float[Tensor, "N P"] | None = None
    """One vector a prompt, for models that ask for it (SDXL)."""

    def __getitem__(self, rows: slice | list[int] | Tensor) -> TextEncoding:
        return TextEncoding(self.hidden[rows], None if self.pooled is None else self.pooled[rows])

    def zeros(self) -> TextEncoding:
        """The same shapes, all zero."""
        return TextEncoding(
            torch.zeros_like(self.hidden), None if self.pooled is None else torch.zeros_like(self.pooled)
        )

    def to(self, device: torch.device) -> TextEncoding:
        """The same on another device."""
        return TextEncoding(self.hidden.to(device), None if self.pooled is None else self.pooled.to(device))

    @staticmethod
    def cat(parts: Sequence[TextEncoding]) -> TextEncoding:
        """All rows of several encodings of one model."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return TextEncoding(torch.cat([part.hidden for part in parts]), torch.cat(pooled) if pooled else None)


def encode_prompts(
    model: str,
    prompts: Sequence[str],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    use_cache: bool = True,
    adapters: Sequence[LoRAFile] = (),
    memory: Memory = NOTHING,
) -> TextEncoding:
    """Embeddings of `prompts` (N of them, in order) by the text encoder(s) of `model`.

    The encoder is loaded only for prompts that are not in the cache, and is gone afterwards. What it cannot
    read is logged as a warning. `adapters` may bring it new words, or change it.

    Raises:
        ModelUnavailableError, UserError: as `load_pipeline`.
        UserError: `memory` offloads the encoder, and the device is no GPU.
    """
    has_folder = not is_random(model) and not is_single_file(model)
    cache = EmbeddingCache(model, dtype, adapters) if use_cache and has_folder else None
    known = {prompt: cache.read(prompt) for prompt in dict.fromkeys(prompts)} if cache else {}
    missing = [prompt for prompt in dict.fromkeys(prompts) if known.get(prompt) is None]
    if missing:
        fresh = _encode_all(model, missing, dtype, torch.device(device), adapters, memory)
        release_memory()
        for row, prompt in enumerate(missing):
            known[prompt] = fresh[row : row + 1]
            if cache:
                cache.write(prompt, fresh[row : row + 1])
    return TextEncoding.cat([known[prompt] for prompt in prompts])


def empty_is_zero(model: str) -> bool:
    """Whether a model was trained with zeros, not the embedding of "", in place of no text (as SDXL was)."""
    pipeline = load_pipeline(model, parts=())
    return bool(getattr(pipeline.config, "force_zeros_for_empty_prompt", False))


def truncated_words(tokenizer: Any, prompt: str) -> str:
    """The end of a prompt that does not fit into the encoder; empty if all of it does."""
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    return tokenizer.decode(ids[room:]).strip() if len(ids) > room else ""


class EmbeddingCache:
    """Embeddings on disk, one safetensors file a prompt, keyed by what the text encoder really contains."""

    def __init__(self, model: str, dtype: torch.dtype, adapters: Sequence[LoRAFile] = ()) -> None:
        self._key = f"{_fingerprint(model_folder(model, TEXT_PARTS))}-{dtype}{fingerprint(adapters)}"
        self._folder = cache_dir("text_embeddings")

    def path(self, prompt: str) -> Path:
        """Where the embedding of a prompt is, or would be."""
        return self._folder / f"{_digest(self._key, prompt)}.safetensors"

    def read(self, prompt: str) -> TextEncoding | None:
        """The embedding of one prompt; None if it is not there or cannot be read."""
        try:
            with safe_open(self.path(prompt), framework="pt") as handle:
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}
                prompt_there = (handle.metadata() or {}).get("prompt")
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as err:
            log.warning("The cached embedding %s is damaged (%s) and is made again.", self.path(prompt), err)
            return None
        return TextEncoding(tensors["hidden"], tensors.get("pooled")) if prompt_there == prompt else None

    def write(self, prompt: str, encoding: TextEncoding) -> None:
        """Keep the embedding of one prompt; the file is whole or absent."""
        tensors = {"hidden": encoding.hidden} | (
            {} if encoding.pooled is None else {"pooled": encoding.pooled}
        )
        with atomic_path(self.path(prompt)) as temporary:
            save_file(
                {name: one.contiguous() for name, one in tensors.items()}, temporary, {"prompt": prompt}
            )


@torch.no_grad()
def _encode_all(
    model: str,
    prompts: Sequence[str],
    dtype: torch.dtype,
    device: torch.device,
    adapters: Sequence[LoRAFile] = (),
    memory: Memory = NOTHING,
) -> TextEncoding:
    """Embeddings on the CPU, encoded on `device`."""
    memory.check(device)
    pipeline = load_pipeline(model, dtype=dtype, parts=TEXT_PARTS)
    adapt_text(pipeline, adapters)
    pipeline = placed(pipeline, device, memory)
    _warn(pipeline, prompts)
    batches = [prompts[i : i + BATCH] for i in range(0, len(prompts), BATCH)]
    return TextEncoding.cat(
        [_encode(pipeline, list(batch), device).to(torch.device("cpu")) for batch in batches]
    )


def _encode(pipeline: DiffusionPipeline, prompts: list[str], device: torch.device) -> TextEncoding:
    encode = getattr(pipeline, "encode_prompt", None) or pipeline._encode_prompt
    others = {} if pipeline.components.get("text_encoder_3") is None else {"prompt_2": None, "prompt_3": None}
    found = encode(
        prompts, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False, **others
    )
    if isinstance(found, Tensor):
        return TextEncoding(found)
    return TextEncoding(found[0], found[2] if len(found) == 4 else None)


def _warn(pipeline: DiffusionPipeline, prompts: Sequence[str]) -> None:
    tokenizer = pipeline.tokenizer
    strange = list(dict.fromkeys(word for prompt in prompts for word in unknown_words(tokenizer, prompt)))
    if strange:
        log.warning(_unknown_message(tokenizer, strange))
    cut = next(filter(None, (truncated_words(tokenizer, prompt) for prompt in prompts)), "")
    if cut:
        log.warning(
            'The text encoder reads %d tokens; the end of the prompt is ignored: "%s"',
            tokenizer.model_max_length,
            shorten(cut, SHOWN_CHARACTERS, placeholder=" ..."),
        )


def _unknown_message(tokenizer: Any, strange: Sequence[str]) -> str:
    words = shorten(", ".join(map(repr, strange)), SHOWN_CHARACTERS, placeholder=" ...")
    lines = [f"The text encoder does not know {words} and ignores the meaning."]
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    known = sorted(word for word in tokenizer.get_vocab() if word not in special and word.isalpha())
    if len(known) <= SMALL_VOCABULARY:
        lines.append(f"It knows: {', '.join(known)}.")
        lines.append(
            f"{EMBEDDED_PRIOR} is a small model of toys; for other words use a real one: --prior MODEL, a "
            "folder or a hub id (system.prompt_processor.pretrained_model_name_or_path=MODEL)."
        )
    return "\n".join(lines)


def _fingerprint(folder: Path) -> str:
    """A digest of the text parts of a model: configs, vocabulary and weights."""
    files = sorted(path for part in TEXT_PARTS for path in (folder / part).glob("*") if path.is_file())
    stamps = [path.stat() for path in files]
    return _digest_files(tuple(files), tuple((one.st_size, one.st_mtime_ns) for one in stamps), folder)


@lru_cache(maxsize=8)
def _digest_files(files: tuple[Path, ...], stamps: tuple[tuple[int, int], ...], folder: Path) -> str:
    del stamps  # Only part of the key: files that changed are read again.
    total = hashlib.blake2b(digest_size=16)
    for path in files:
        with path.open("rb") as handle:
            content = hashlib.file_digest(handle, "blake2b").hexdigest()
        total.update(f"{path.relative_to(folder)}\0{content}\n".encode())
    return total.hexdigest()


def _digest(*texts: str) -> str:
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=16).hexdigest()

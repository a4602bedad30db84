"""What adapters bring for the text: new words, and changes of the text encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maquette.diffusion.lora import ADAPTER_FILE, LoRAFile, load_text_adapter
from maquette.diffusion.new_words import WORDS_FILE, add_words, read_words


def adapt_text(pipeline: Any, files: Sequence[LoRAFile]) -> None:
    """Teach the tokenizer and the text encoder of a pipeline what some adapters hold for them.

    New words lie in a file of their own beside an adapter, `learned_embeds.safetensors`. An adapter of the
    UNet alone changes nothing.

    Raises:
        MissingFileError, ModelUnavailableError, UserError: as `load_adapter`.
    """
    for number, one in enumerate(files):
        load_text_adapter(pipeline.text_encoder, one.path, f"lora{number}", one.scale)
        path = words_path(one.path)
        if path is not None:
            add_words(pipeline.tokenizer, pipeline.text_encoder, read_words(path))


def words_path(adapter: str) -> Path | None:
    """The file of new words that belongs to an adapter on this disk."""
    path = Path(adapter).expanduser()
    beside = (path if path.is_dir() else path.parent) / WORDS_FILE
    return beside if path.exists() and beside.is_file() else None


def fingerprint(files: Sequence[LoRAFile]) -> str:
    """Changes whenever what `adapt_text` would do changes; empty without adapters."""
    return "".join(f"|{one.path}:{one.scale}:{_content(one.path)}" for one in files)


def _content(adapter: str) -> str:
    path = Path(adapter).expanduser()
    weights = path / ADAPTER_FILE if path.is_dir() else path
    total = hashlib.blake2b(digest_size=16)
    for one in (weights, words_path(adapter)):
        if one is not None and one.is_file():
            total.update(one.read_bytes())
    return total.hexdigest()

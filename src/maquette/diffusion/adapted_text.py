"""What adapters bring for the text: new words, and changes of the text encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from maquette.core.errors import UserError
from maquette.diffusion.lora import ADAPTER_FILE, TEXT_PREFIX, LoRAFile, load_text_adapter
from maquette.diffusion.new_words import WORDS_FILE, add_words, read_words

TEXT_ENCODERS: Final = (TEXT_PREFIX, f"{TEXT_PREFIX}_2")
"""What pipelines call the text encoders that adapters are for."""


def adapt_text(pipeline: Any, files: Sequence[LoRAFile]) -> None:
    """Teach the tokenizer and the text encoders of a pipeline what some adapters hold for them; of several
    adapters each counts.

    New words lie in a file of their own beside an adapter, `learned_embeds.safetensors`. An adapter of the
    UNet alone changes nothing.

    Raises:
        MissingFileError, ModelUnavailableError, UserError: as `load_adapter`; or there are new words for one
            text encoder, and two here.
    """
    encoders = {part: pipeline.components.get(part) for part in TEXT_ENCODERS}
    for number, one in enumerate(files):
        for part, encoder in encoders.items():
            if encoder is not None:
                load_text_adapter(encoder, one.path, f"lora{number}", one.scale, part)
        path = words_path(one.path)
        if path is not None:
            if encoders[TEXT_ENCODERS[1]] is not None:
                raise UserError(
                    f"The new words in {path} were learned for a model with one text encoder.",
                    ["this one has two"],
                )
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

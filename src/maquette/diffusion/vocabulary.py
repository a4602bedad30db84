"""What a tokenizer knows."""

from __future__ import annotations

import re
from typing import Any


def unknown_words(tokenizer: Any, prompt: str) -> list[str]:
    """Words of a prompt that a tokenizer has no token for, in order.

    A tokenizer whose unknown token also means something else (the end of the text, in CLIP's) knows every
    word.
    """
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id):
        return []
    if unknown not in tokenizer(prompt).input_ids:
        return []
    words = dict.fromkeys(re.findall(r"\w+|[^\w\s]", prompt))
    return [word for word in words if unknown in tokenizer(word).input_ids]

"""Prompts that come with the package, found by a few of their words."""

from __future__ import annotations

import json
import re
from functools import lru_cache

from maquette.core.errors import UserError
from maquette.core.paths import assets_dir

PREFIX = "lib:"
SHOWN = 12


@lru_cache(maxsize=1)
def library() -> tuple[str, ...]:
    """Every prompt of `assets/prompt_library.json`."""
    groups = json.loads(assets_dir("prompt_library.json").read_text(encoding="utf-8"))
    return tuple(prompt for prompts in groups.values() for prompt in prompts)


def resolve_prompt(prompt: str) -> str:
    """The prompt itself, or for "lib:red_mushroom" the one prompt of the library with all of these words.

    Raises:
        UserError: no prompt of the library has them all, or more than one has.
    """
    if not prompt.startswith(PREFIX):
        return prompt
    words = prompt.removeprefix(PREFIX).lower().split("_")
    found = [one for one in library() if set(words) <= set(re.findall(r"\w+", one.lower()))]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"{len(found)} prompts of the library match {prompt!r}.",
            _shown(found),
            "add a word that only one has",
        )
    near = [one for one in library() if set(words) & set(re.findall(r"\w+", one.lower()))]
    raise UserError(
        f"No prompt of the library matches {prompt!r}.", _shown(near or library()), "words are joined by _"
    )


def _shown(prompts: list[str] | tuple[str, ...]) -> list[str]:
    rest = len(prompts) - SHOWN
    return [*prompts[:SHOWN], *([f"... and {rest} more"] if rest > 0 else [])]

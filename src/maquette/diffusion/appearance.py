"""Words that say how a thing looks and not what shape it has, so that a change of them need not change it."""

from __future__ import annotations

from typing import Final

from maquette.diffusion.word_alignment import changed_words

_WORDS: Final = """
red green blue yellow orange purple pink brown black white grey gray cyan magenta turquoise teal violet indigo
crimson scarlet maroon beige ivory cream lavender lilac olive lime navy gold golden silver bronze copper brass
colored coloured colorful colourful rainbow pastel monochrome dark darker light lighter bright brighter pale
vivid deep dull faded neon transparent translucent opaque
wooden wood metal metallic steel iron chrome aluminium aluminum glass crystal plastic rubber ceramic porcelain
clay stone marble granite concrete leather velvet silk cotton denim wool woolen paper cardboard wax jade pearl
shiny glossy matte polished rusty dusty dirty clean painted lacquered enameled weathered worn
striped stripes spotted spots dotted dots checkered plaid patterned floral camouflage
a an the of in with and made from very , . - '
"""
APPEARANCE: Final = frozenset(_WORDS.split())
"""Colors, materials, finishes and patterns, and the small words that go with them."""


def shape_words(source: str, target: str) -> list[str]:
    """The words that changed between two prompts and may mean another shape, in the order of the prompts."""
    removed, added = changed_words(source, target)
    return [word for word in dict.fromkeys([*removed, *added]) if word not in APPEARANCE]

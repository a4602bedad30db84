"""Captions of toys: "a red car, front left view, high", and the looser ways in which people write them."""

from __future__ import annotations

import random

from maquette.core.view_words import (
    AZIMUTH_WORDS,
    ELEVATION_WORDS,
    azimuth_index,
    azimuth_word,
    elevation_index,
    elevation_word,
    view_caption,
)

__all__ = [
    "AZIMUTH_WORDS",
    "ELEVATION_WORDS",
    "azimuth_index",
    "azimuth_word",
    "caption",
    "elevation_index",
    "elevation_word",
    "name",
    "varied_caption",
    "words",
]

EMPTY_SHARE = 0.10
"""Captions dropped altogether, for classifier-free guidance (Ho and Salimans 2022)."""
VIEWLESS_SHARE = 0.04
"""Captions without their view. Few: a prior that is often asked without a view learns to ignore it."""
LOOSE_SHARE = 0.08
"""Captions in other words."""
LOOSE_FORMS = ("a photo of {}", "a picture of {}", "a nice {bare}", "{bare}", "the {bare}", "a view of {}")


def name(kind: str, color: str) -> str:
    """The toy alone: "a red car", "an orange car"."""
    article = "an" if color[0] in "aeiou" else "a"
    return f"{article} {color} {kind}"


def caption(kind: str, color: str, azimuth_deg: float, elevation_deg: float) -> str:
    """The whole caption of a view."""
    return view_caption(name(kind, color), azimuth_deg, elevation_deg)


def varied_caption(text: str, rng: random.Random) -> str:
    """A training caption: mostly ``text`` itself, now and then shortened, reworded or empty."""
    if rng.random() < EMPTY_SHARE:
        return ""
    toy, _, view = text.partition(", ")
    if rng.random() < LOOSE_SHARE:
        toy = rng.choice(LOOSE_FORMS).format(toy, bare=toy.split(" ", 1)[1])
    if rng.random() < VIEWLESS_SHARE:
        return toy if rng.random() < 0.5 else f"{toy}, {view.partition(', ')[0]}"
    return f"{toy}, {view}"


def words(kinds: list[str], colors: list[str]) -> set[str]:
    """Every word that captions about these kinds and colours can hold."""
    views = {word for phrase in (*AZIMUTH_WORDS, *ELEVATION_WORDS) for word in phrase.split()}
    return {*kinds, *colors, *views, "view", "photo", "picture", "of", "a", "an", "the", "nice"}

"""Captions: a word for every direction, and "a red car, front left view, high"."""

from __future__ import annotations

from typing import Final

AZIMUTH_WORDS: Final = (
    "front",
    "front right",
    "right",
    "back right",
    "back",
    "back left",
    "left",
    "front left",
)
"""Sectors of 45 degrees, the first centred on azimuth 0 (camera at +x), the third on +90 (camera at +y)."""

ELEVATION_WORDS: Final = ("low", "level", "high", "overhead")
"""Below 10, below 35, below 60 degrees, and the rest."""

ELEVATION_LIMITS: Final = (10.0, 35.0, 60.0)


def azimuth_sector(azimuth_deg: float) -> int:
    """Index of the 45 degree sector an azimuth lies in, any multiple of a turn allowed."""
    return int(((azimuth_deg + 22.5) % 360.0) // 45.0) % 8


def elevation_band(elevation_deg: float) -> int:
    """Index of the elevation band."""
    return sum(elevation_deg >= limit for limit in ELEVATION_LIMITS)


def azimuth_word(azimuth_deg: float) -> str:
    """Word of the camera's azimuth in degrees."""
    return AZIMUTH_WORDS[azimuth_sector(azimuth_deg)]


def elevation_word(elevation_deg: float) -> str:
    """Word of the camera's elevation in degrees."""
    return ELEVATION_WORDS[elevation_band(elevation_deg)]


def name(kind: str, color: str) -> str:
    """The toy alone: "a red car", "an orange car"."""
    article = "an" if color[0] in "aeiou" else "a"
    return f"{article} {color} {kind}"


def caption(kind: str, color: str, azimuth_deg: float, elevation_deg: float) -> str:
    """The whole caption of a view."""
    return f"{name(kind, color)}, {azimuth_word(azimuth_deg)} view, {elevation_word(elevation_deg)}"

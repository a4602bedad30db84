"""Words of views: sectors are centred on their directions and cover the circle once."""

from collections import Counter

import pytest

from maquette.core import view_words


@pytest.mark.parametrize(
    ("azimuth", "word"),
    [
        (0, "front"),
        (45, "front right"),
        (90, "right"),
        (135, "back right"),
        (180, "back"),
        (-180, "back"),
        (-135, "back left"),
        (-90, "left"),
        (-45, "front left"),
        (22.4, "front"),
        (22.5, "front right"),
        (-22.6, "front left"),
        (360, "front"),
        (450, "right"),
    ],
)
def test_azimuth_word(azimuth, word):
    assert view_words.azimuth_word(azimuth) == word


def test_every_sector_is_45_degrees_wide():
    counts = Counter(view_words.azimuth_word(azimuth + 0.25) for azimuth in range(-360, 720))
    assert counts == dict.fromkeys(view_words.AZIMUTH_WORDS, 3 * 45)


@pytest.mark.parametrize(
    ("elevation", "word"),
    [
        (-90, "low"),
        (9.9, "low"),
        (10, "level"),
        (35, "level"),
        (35.1, "high"),
        (60, "high"),
        (60.1, "overhead"),
    ],
)
def test_elevation_word(elevation, word):
    assert view_words.elevation_word(elevation) == word


def test_caption():
    caption = view_words.view_caption("a red mushroom", azimuth=-40, elevation=50)
    assert caption == "a red mushroom, front left view, high"


@pytest.mark.parametrize(
    ("azimuth", "elevation", "word"),
    [
        (0, 0, "front"),
        (44.9, 0, "front"),
        (45, 0, "side"),
        (135, 0, "side"),
        (135.1, 0, "back"),
        (-135.1, 0, "back"),
        (190, 0, "back"),
        (0, 60, "front"),
        (0, 60.1, "overhead"),
    ],
)
def test_ecosystem_word(azimuth, elevation, word):
    assert view_words.ecosystem_word(azimuth, elevation) == word

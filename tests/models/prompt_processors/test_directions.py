import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.core.view_words import view_caption
from maquette.models.prompt_processors.directions import (
    custom_views,
    four_views,
    parse_directions,
    toyworld_views,
)


def word(directions, azimuth, elevation):
    index = directions.index(torch.tensor([float(elevation)]), torch.tensor([float(azimuth)]))
    return directions.names[index.item()]


@pytest.mark.parametrize(
    ("azimuth", "elevation", "expected"),
    [
        (0, 0, "front"),
        (44, 0, "front"),
        (-44, 0, "front"),
        (359, 0, "front"),
        (45, 0, "side"),
        (-90, 0, "side"),
        (135, 0, "side"),
        (136, 0, "back"),
        (180, 0, "back"),
        (-179, 0, "back"),
        (225.5, 0, "side"),
        (0, 60, "front"),
        (0, 61, "overhead"),
        (180, 89, "overhead"),
    ],
)
def test_four_views(azimuth, elevation, expected):
    assert word(four_views(), azimuth, elevation) == expected


def test_thresholds_move_the_limits():
    narrow = four_views(front_threshold=10, back_threshold=20, overhead_threshold=30)
    assert [word(narrow, az, 0) for az in (9, 11, 159, 161)] == ["front", "side", "side", "back"]
    assert word(narrow, 0, 31) == "overhead"


def test_words_stand_after_or_before_the_prompt():
    assert four_views().prompts("a {hat}") == [
        "a {hat}, side view",
        "a {hat}, front view",
        "a {hat}, back view",
        "a {hat}, overhead view",
    ]
    assert four_views(words_first=True).prompts("a hat")[2] == "backside view of a hat"


def test_toyworld_words_are_those_of_its_captions():
    directions = toyworld_views()
    assert len(directions.names) == 32
    prompts = directions.prompts("a red car")
    azimuth = torch.arange(-360.0, 360.0, 7.0)
    for elevation in (-30.0, 10.0, 35.0, 45.0, 60.0, 85.0):
        rows = directions.index(torch.full_like(azimuth, elevation), azimuth)
        expected = [view_caption("a red car", az, elevation) for az in azimuth.tolist()]
        assert [prompts[row] for row in rows.tolist()] == expected


def test_own_directions_later_ones_win():
    directions = custom_views(
        [
            {"name": "side"},
            {"name": "rear", "prompt": "{} from behind", "azimuth": [135, -135]},
            {"name": "top", "elevation": [60, 90]},
        ]
    )
    assert directions.prompts("a duck") == ["a duck, side view", "a duck from behind", "a duck, top view"]
    assert [word(directions, az, 0) for az in (0, 134, 136, 180, -136, -134)] == [
        "side",
        "side",
        "rear",
        "rear",
        "rear",
        "side",
    ]
    assert word(directions, 180, 61) == "top"


def test_a_range_of_a_whole_turn_holds_everywhere():
    directions = custom_views([{"name": "a"}, {"name": "b", "azimuth": [-180, 180]}])
    assert {word(directions, az, 0) for az in range(-180, 181, 15)} == {"b"}


@pytest.mark.parametrize(
    "value",
    [
        "sixteen",
        [],
        [{"name": "front", "azimuth": [0, 90]}],
        [{"prompt": "{}"}],
        [{"name": "a", "colour": "red"}],
        [{"name": "a", "prompt": "no place"}],
        [{"name": "a"}, {"name": "b", "azimuth": [1]}],
        [{"name": "a"}, {"name": "b", "elevation": "high"}],
        7,
    ],
)
def test_wrong_directions_are_refused(value):
    with pytest.raises(ConfigError, match="directions"):
        parse_directions(value, four_views())

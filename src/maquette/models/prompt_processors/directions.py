"""Which words a prompt gets for a view: sets of directions, and the direction of a camera."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor

from maquette.core import view_words
from maquette.core.errors import ConfigError

KEY = "system.prompt_processor.directions"

Choice = Callable[[float, float], int]
"""Azimuth and elevation in degrees -> index of the direction."""

EXPECTED = (
    '"default", "toyworld", or a list of {name, prompt, azimuth: [from, to], elevation: [from, to]} '
    "in degrees, of which the first has no limits and later ones win"
)


@dataclass(frozen=True)
class Directions:
    """Names of views, the text of each, and how a camera finds its own."""

    names: tuple[str, ...]
    templates: tuple[str, ...]
    """`{}` stands for the prompt."""
    choose: Choice

    def prompts(self, prompt: str) -> list[str]:
        """The prompt in the words of every direction."""
        return [template.replace("{}", prompt) for template in self.templates]

    def index(self, elevation: Float[Tensor, "B"], azimuth: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
        """The direction of each camera; angles in degrees, any azimuth."""
        pairs = zip(azimuth.tolist(), elevation.tolist(), strict=True)
        return torch.tensor([self.choose(az, el) for az, el in pairs], device=azimuth.device)


def four_views(
    front_threshold: float = 45.0,
    back_threshold: float = 45.0,
    overhead_threshold: float = 60.0,
    words_first: bool = False,
) -> Directions:
    """Side, front, back and overhead, as models trained on photographs know them; thresholds in degrees.

    `words_first` writes "front view of {}" in place of "{}, front view".
    """
    names = view_words.ECOSYSTEM_WORDS
    first = {name: f"{'backside' if name == 'back' else name} view of {{}}" for name in names}
    after = {name: f"{{}}, {name} view" for name in names}

    def choose(azimuth: float, elevation: float) -> int:
        word = view_words.ecosystem_word(
            azimuth, elevation, front_threshold, back_threshold, overhead_threshold
        )
        return names.index(word)

    return Directions(names, tuple((first if words_first else after).values()), choose)


def toyworld_views() -> Directions:
    """Eight azimuth words times four elevation words, the captions of the embedded prior."""
    names = tuple(
        view_words.view_phrase(azimuth, elevation)
        for azimuth in view_words.AZIMUTH_WORDS
        for elevation in view_words.ELEVATION_WORDS
    )

    def choose(azimuth: float, elevation: float) -> int:
        rows = len(view_words.ELEVATION_WORDS)
        return view_words.azimuth_index(azimuth) * rows + view_words.elevation_index(elevation)

    return Directions(names, tuple(f"{{}}, {name}" for name in names), choose)


def custom_views(entries: Sequence[Mapping[str, Any]]) -> Directions:
    """Directions of a config; see `EXPECTED`. An azimuth range may cross 180 degrees ([135, -135]).

    Raises:
        ConfigError: an entry is incomplete, or some camera would have no direction.
    """
    rows = [_check_entry(entry, number) for number, entry in enumerate(entries)]
    if not rows or "azimuth" in rows[0] or "elevation" in rows[0]:
        raise ConfigError(KEY, list(entries), EXPECTED, "the first direction must hold for every camera")

    def choose(azimuth: float, elevation: float) -> int:
        return max(i for i, row in enumerate(rows) if _contains(row, azimuth, elevation))

    templates = tuple(str(row.get("prompt", f"{{}}, {row['name']} view")) for row in rows)
    return Directions(tuple(str(row["name"]) for row in rows), templates, choose)


def parse_directions(value: Any, default: Directions) -> Directions:
    """The directions that a config asks for by name or spells out; `default` for "default".

    Raises:
        ConfigError: neither a known name nor a good list.
    """
    if value == "default":
        return default
    if value == "toyworld":
        return toyworld_views()
    if isinstance(value, ListConfig):
        value = OmegaConf.to_container(value, resolve=True)
    if isinstance(value, list | tuple):
        return custom_views(value)
    raise ConfigError(KEY, value, EXPECTED)


def _check_entry(entry: Any, number: int) -> dict[str, Any]:
    known = {"name", "prompt", "azimuth", "elevation"}
    entry = OmegaConf.to_container(entry) if isinstance(entry, DictConfig) else entry
    if not isinstance(entry, Mapping) or "name" not in entry or set(entry) - known:
        raise ConfigError(f"{KEY}[{number}]", entry, EXPECTED)
    for key in ("azimuth", "elevation"):
        limits = entry.get(key, (0, 0))
        if (
            not isinstance(limits, list | tuple)
            or len(limits) != 2
            or not all(_is_number(one) for one in limits)
        ):
            raise ConfigError(f"{KEY}[{number}].{key}", limits, "two numbers [from, to] in degrees")
    if "{}" not in entry.get("prompt", "{}"):
        raise ConfigError(
            f"{KEY}[{number}].prompt", entry["prompt"], "a text in which {} stands for the prompt"
        )
    return dict(entry)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _contains(row: Mapping[str, Any], azimuth: float, elevation: float) -> bool:
    low, high = row.get("elevation", (-90.0, 90.0))
    if not low <= elevation <= high:
        return False
    if "azimuth" not in row:
        return True
    low, high = row["azimuth"]
    width = (high - low) % 360.0 or 360.0 * (high != low)
    return (azimuth - low) % 360.0 <= width

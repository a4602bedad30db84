"""Words for where a camera stands, shared by the prompts and by the captions of the embedded prior.

Azimuth 0 is the front (+x), +90 the right side (camera at +y), 180 the back; elevation +90 is the top.
Degrees.
"""

AZIMUTH_WORDS = (
    "front",
    "front right",
    "right",
    "back right",
    "back",
    "back left",
    "left",
    "front left",
)
"""Eight sectors of 45 degrees, each centred on its direction, in order of growing azimuth from 0."""

ELEVATION_WORDS = ("low", "level", "high", "overhead")
"""From the lowest camera to the highest; the limits are in `ELEVATION_LIMITS`."""

ELEVATION_LIMITS = (10.0, 35.0, 60.0)
"""Degrees between neighbours of `ELEVATION_WORDS`: low < 10 <= level <= 35 < high <= 60 < overhead."""

ECOSYSTEM_WORDS = ("side", "front", "back", "overhead")
"""The four view words of this ecosystem, in its order of precedence: later ones win."""


def wrap_azimuth(azimuth: float) -> float:
    """The same azimuth in [-180, 180) degrees."""
    return (azimuth + 180.0) % 360.0 - 180.0


def azimuth_index(azimuth: float) -> int:
    """Index into `AZIMUTH_WORDS` of the sector that holds `azimuth` (degrees)."""
    return int(((azimuth + 22.5) % 360.0) // 45.0) % len(AZIMUTH_WORDS)


def azimuth_word(azimuth: float) -> str:
    """One of the eight sector words for `azimuth` (degrees)."""
    return AZIMUTH_WORDS[azimuth_index(azimuth)]


def elevation_index(elevation: float) -> int:
    """Index into `ELEVATION_WORDS` for `elevation` (degrees)."""
    low, level, high = ELEVATION_LIMITS
    return int(elevation >= low) + int(elevation > level) + int(elevation > high)


def elevation_word(elevation: float) -> str:
    """One of the four elevation words for `elevation` (degrees)."""
    return ELEVATION_WORDS[elevation_index(elevation)]


def view_phrase(azimuth_name: str, elevation_name: str) -> str:
    """The words of a view as they follow the name of a thing: "front left view, high"."""
    return f"{azimuth_name} view, {elevation_name}"


def view_caption(thing: str, azimuth: float, elevation: float) -> str:
    """A caption such as "a red mushroom, front left view, high"; angles in degrees."""
    return f"{thing}, {view_phrase(azimuth_word(azimuth), elevation_word(elevation))}"


def ecosystem_word(
    azimuth: float,
    elevation: float,
    front_threshold: float = 45.0,
    back_threshold: float = 45.0,
    overhead_threshold: float = 60.0,
) -> str:
    """ "side", "front", "back" or "overhead", as this ecosystem cuts the sphere; all in degrees, limits
    exclusive.
    """
    if elevation > overhead_threshold:
        return "overhead"
    azimuth = wrap_azimuth(azimuth)
    if abs(azimuth) > 180.0 - back_threshold:
        return "back"
    if abs(azimuth) < front_threshold:
        return "front"
    return "side"

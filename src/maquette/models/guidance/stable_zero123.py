"""Guidance by stable Zero123, which is told the elevation of the reference camera."""

from dataclasses import dataclass
from typing import ClassVar

from maquette.core.registry import register
from maquette.models.guidance.zero123 import Zero123Guidance


@register("stable-zero123-guidance")
class StableZero123Guidance(Zero123Guidance):
    """Zero123 with the weights of Stability AI, whose training renders knew elevation and one distance."""

    stable: ClassVar[bool] = True

    @dataclass(kw_only=True)
    class Config(Zero123Guidance.Config):
        """The options of `zero123-guidance`."""

        pretrained_model_name_or_path: str = "ashawkey/stable-zero123-diffusers"
        """A folder or an id of the hub in the layout of diffusers."""

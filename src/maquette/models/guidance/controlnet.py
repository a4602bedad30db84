"""Guidance that follows a control picture: edges, normals and the like (ControlNet, Zhang et al. 2023)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.core.registry import register
from maquette.diffusion.denoiser import load_denoiser
from maquette.diffusion.families.controlnet import ControlNetDenoiser
from maquette.diffusion.families.kinds import of_family
from maquette.diffusion.load import family, is_random
from maquette.models.guidance.base import KEY, one_of
from maquette.models.guidance.picture_edit import PictureEditGuidance
from maquette.ops.edges import box_blur, canny

NETWORKS = {
    "normal": "lllyasviel/control_v11p_sd15_normalbae",
    "canny": "lllyasviel/control_v11p_sd15_canny",
    "depth": "lllyasviel/control_v11f1p_sd15_depth",
    "tile": "lllyasviel/control_v11f1e_sd15_tile",
}
"""The network of each type of control picture, for Stable Diffusion 1.5."""

BLUR = 5
"""Pixels of the box that pictures are blurred with before their edges are looked for."""

Annotator = Callable[[Float[Tensor, "B 3 H W"]], Float[Tensor, "B 3 H W"]]
"""Makes control pictures of pictures."""


@register("stable-diffusion-controlnet-guidance")
class ControlNetGuidance(PictureEditGuidance):
    """Stable Diffusion behind a ControlNet; `cond_rgb` is what control pictures are made of.

    Edges are found here. Normals and depth of a photograph need networks that are not part of this package:
    for them `cond_rgb` has to be the control picture itself (`cond_is_control`), such as rendered normals.
    """

    family: ClassVar[str] = "controlnet"
    reads: ClassVar[str] = "control"

    @dataclass(kw_only=True)
    class Config(PictureEditGuidance.Config):
        """The two networks, and the control picture."""

        pretrained_model_name_or_path: str = "SG161222/Realistic_Vision_V2.0"
        """The model: a folder or an id of the hub, with or without a ControlNet of its own."""
        controlnet_name_or_path: str | None = None
        """The ControlNet; null for the model's own, or the known one of the control type."""
        control_type: str = "normal"
        """What the control picture shows: normal, canny, depth or tile (the picture itself)."""
        cond_is_control: bool = False
        """Whether `cond_rgb` is the control picture already."""
        canny_lower_bound: int = 50
        """Edges are followed down to this gradient, of pictures with values up to 255."""
        canny_upper_bound: int = 100
        """Edges begin at this gradient."""

        def __post_init__(self) -> None:
            super().__post_init__()
            one_of("control_type", self.control_type, tuple(NETWORKS))
            if not 0 <= self.canny_lower_bound <= self.canny_upper_bound:
                raise ConfigError(
                    f"{KEY}.canny_lower_bound", self.canny_lower_bound, "0 up to canny_upper_bound"
                )

    denoiser: ControlNetDenoiser

    def configure(self, denoiser: Any = None) -> None:
        """Choose what makes control pictures, and load both networks."""
        self.annotate = self._annotator()
        super().configure(denoiser)
        self.denoiser.conditioning_scale = self.cfg.condition_scale

    def second(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Control pictures."""
        return self.annotate(images)

    def _annotator(self) -> Annotator:
        """What makes control pictures of `cond_rgb`.

        Raises:
            ConfigError: nothing here can.
        """
        kind: str = self.cfg.control_type
        if self.cfg.cond_is_control or kind == "tile":
            return _as_it_is
        if kind == "canny":
            return self._edges
        raise ConfigError(
            f"{KEY}.control_type",
            kind,
            f"canny or tile: nothing here finds the {kind} of a photograph",
            f"or set {KEY}.cond_is_control=true and give control pictures, such as rendered normals",
        )

    def _edges(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        low, high = (bound / 255.0 for bound in (self.cfg.canny_lower_bound, self.cfg.canny_upper_bound))
        return canny(box_blur(images, BLUR), low, high)[:, None].expand(-1, 3, -1, -1).to(images)

    def _open(self, name: str, dtype: torch.dtype, own: bool, **switches: Any) -> Any:
        network: str | None = self.cfg.controlnet_name_or_path
        if network is None and is_random(name):
            name = of_family(name, self.family)
        if network is None and family(name).name != self.family:
            network = NETWORKS[self.cfg.control_type]
        return load_denoiser(name, dtype, self.device, controlnet=network, **switches)


def _as_it_is(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    return images

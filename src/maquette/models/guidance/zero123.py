"""Guidance by new views of one picture (Zero123), which reads no text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maquette.core.errors import ConfigError, MissingFileError
from maquette.core.registry import register
from maquette.diffusion.families.zero123 import PictureCondition, Zero123Denoiser, relative_camera
from maquette.io.images import read_image
from maquette.models.guidance.base import KEY
from maquette.models.guidance.conditioned import ConditionedEncoding, ConditionedGuidance
from maquette.models.guidance.view_text import ViewCondition
from maquette.models.guidance.views import Views


@dataclass(frozen=True)
class PictureView(ViewCondition):
    """The reference picture, and where B cameras stand as seen from its own."""

    condition: PictureCondition
    cameras: Float[Tensor, "B 3"]
    """Elevation and azimuth in degrees, and distance."""

    def first(self, n: int) -> "PictureView":
        """That of the first n pictures."""
        return PictureView(self.condition[:n], self.cameras[:n])

    def encoding(self) -> ConditionedEncoding:
        """2B rows [cond; uncond]; without a picture everything is zero."""
        return _encoding(PictureCondition.cat([self.condition, self.condition.zeros()]))

    def null(self) -> ConditionedEncoding:
        """B rows of zeros."""
        return _encoding(self.condition.zeros())

    def prompts(self) -> list[str]:
        """The cameras in words."""
        return [f"e{e:.0f} a{a:.0f} c{c:.2f}" for e, a, c in self.cameras.tolist()]


@dataclass(kw_only=True)
class ReferenceConfig:
    """The reference picture, and the camera that took it."""

    cond_image_path: str = "load/images/hamburger_rgba.png"
    """The reference picture; a transparent background becomes white, as in the model's training."""
    cond_elevation_deg: float = 0.0
    """Elevation of its camera, degrees."""
    cond_azimuth_deg: float = 0.0
    """Azimuth of its camera, degrees; 0 is the front."""
    cond_camera_distance: float = 1.2
    """Distance of its camera."""

    def check_reference(self) -> None:
        """Refuse a camera that cannot be."""
        if not -90.0 <= self.cond_elevation_deg <= 90.0:
            raise ConfigError(f"{KEY}.cond_elevation_deg", self.cond_elevation_deg, "degrees, -90 to 90")
        if self.cond_camera_distance <= 0:
            raise ConfigError(f"{KEY}.cond_camera_distance", self.cond_camera_distance, "a length above 0")


class Reference:
    """The reference picture as the model sees it.

    Args:
        picture: in [0, 1], on white.
        denoiser: looks at it.
        cfg: has the camera that took it (`ReferenceConfig`).
        stable: whether the model's fourth number of a camera is that of stable Zero123.
    """

    def __init__(
        self, picture: Float[Tensor, "1 3 S S"], denoiser: Any, cfg: Any, stable: bool = False
    ) -> None:
        self.denoiser, self.stable = denoiser, stable
        self.embedding, self.latents = denoiser.picture(picture)
        self.elevation: float = cfg.cond_elevation_deg
        self.azimuth: float = cfg.cond_azimuth_deg
        self.distance: float = cfg.cond_camera_distance

    def seen_from(self, views: Views) -> PictureView:
        """The picture, and where the cameras stand as seen from its own."""
        around = (views.elevation, views.azimuth, views.camera_distances)
        camera = relative_camera(
            *around,
            from_elevation_deg=self.elevation,
            from_azimuth_deg=self.azimuth,
            from_distance=self.distance,
            stable=self.stable,
        )
        camera = camera.to(self.embedding.device)
        condition = self.denoiser.condition(self.embedding, self.latents, camera)
        return PictureView(condition, torch.stack(around, dim=1))


@register("zero123-guidance")
class Zero123Guidance(ConditionedGuidance):
    """SDS, or another rule, with a model that knows how one picture looks from elsewhere (Liu et al. 2023).

    The prompt has no part in it: `prompt_utils` may be None.
    """

    family: ClassVar[str] = "zero123"
    reads: ClassVar[str] = "picture"
    stable: ClassVar[bool] = False
    """Whether the model's fourth number of a camera is that of stable Zero123."""

    @dataclass(kw_only=True)
    class Config(ReferenceConfig, ConditionedGuidance.Config):
        """The model, the reference picture, and the camera that took it."""

        pretrained_model_name_or_path: str = "kxic/zero123-165000"
        """A folder or an id of the hub in the layout of diffusers."""
        pretrained_config: str = ""
        """Accepted for older recipes; never read: a model says itself how it is built."""
        vram_O: bool = True  # noqa: N815 (the ecosystem's name)
        """Accepted for older recipes: what is not needed is not loaded."""
        guidance_scale: float = 5.0
        """s of eps_uncond + s (eps_picture - eps_uncond)."""
        half_precision_weights: bool = False
        """float16 weights on a GPU; on a CPU they are float32 always."""

        def __post_init__(self) -> None:
            super().__post_init__()
            self.check_reference()

    denoiser: Zero123Denoiser

    def configure(self, denoiser: Any = None) -> None:
        """Read the reference picture, load the model, and let it look at the picture."""
        picture = reference_picture(self.cfg.cond_image_path)
        super().configure(denoiser)
        self.reference = Reference(picture.to(self.device), self.denoiser, self.cfg, self.stable)

    def condition(self, views: Views) -> PictureView:
        """Where the cameras stand, as seen from that of the reference picture."""
        return self.reference.seen_from(views)


def reference_picture(path: str) -> Float[Tensor, "1 3 S S"]:
    """A picture in [0, 1] on white, padded with white to a square.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is not a picture.
    """
    if not Path(path).is_file():
        raise MissingFileError(Path(path), "reference picture", hint=f"set {KEY}.cond_image_path=PICTURE")
    image = read_image(path).permute(2, 0, 1)[None]
    if image.shape[1] == 4:
        image = image[:, :3] * image[:, 3:] + (1.0 - image[:, 3:])
    rows, columns = image.shape[-2:]
    missing = (max(rows - columns, 0), max(columns - rows, 0))
    left, top = (one // 2 for one in missing)
    padding = (left, missing[0] - left, top, missing[1] - top)
    return F.pad(image.expand(-1, 3, -1, -1), padding, value=1.0)


def _encoding(condition: PictureCondition) -> ConditionedEncoding:
    return ConditionedEncoding(condition.tokens, None, condition.latents)

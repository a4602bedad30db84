"""The point light for pictures of Gaussians, whose colours are there already."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.registry import register
from maquette.models.materials.diffuse_with_point_light import DiffuseWithPointLightMaterial


@register("gaussian-diffuse-with-point-light-material")
class GaussianDiffuseWithPointLightMaterial(DiffuseWithPointLightMaterial):
    """As `diffuse-with-point-light-material`, for features that are the albedo in [0, 1] themselves.

    A rasterizer of Gaussians gives it the colours of pixels; what it exports is made of the field's features,
    which are logits of colours as everywhere.
    """

    @dataclass(kw_only=True)
    class Config(DiffuseWithPointLightMaterial.Config):
        """Options."""

        albedo_activation: str = "none"
        """Activation of the first three features."""

    def export(self, features: Float[Tensor, "*N F"], **kwargs: Any) -> dict[str, Float[Tensor, "*N 3"]]:
        """The albedo of points of the field."""
        return {"albedo": torch.sigmoid(features[..., :3])}

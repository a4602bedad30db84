"""The point light for pictures of Gaussians, whose colours are there already."""

from dataclasses import dataclass

from maquette.core.registry import register
from maquette.models.materials.diffuse_with_point_light import DiffuseWithPointLightMaterial


@register("gaussian-diffuse-with-point-light-material")
class GaussianDiffuseWithPointLightMaterial(DiffuseWithPointLightMaterial):
    """As `diffuse-with-point-light-material`, of features that are the albedo in [0, 1] themselves."""

    @dataclass(kw_only=True)
    class Config(DiffuseWithPointLightMaterial.Config):
        """Options."""

        albedo_activation: str = "none"
        """Activation of the first three features."""

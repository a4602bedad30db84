"""Emission and absorption along rays: the renderer of a NeRF."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from maquette.core.registry import register
from maquette.kernels.occupancy import RaySamples
from maquette.models.geometry.base import GeometryOutput
from maquette.models.renderers.volume import VolumeRenderer, check_field


@register("nerf-volume-renderer")
class NeRFVolumeRenderer(VolumeRenderer):
    """Draws a field of density (Mildenhall et al. 2020, NeRF)."""

    @dataclass(kw_only=True)
    class Config(VolumeRenderer.Config):
        """Options."""

        proposal_network_config: dict[str, Any] | None = None
        """Of the estimator `proposal`."""
        prop_optimizer_config: dict[str, Any] | None = None
        """Of the estimator `proposal`."""
        prop_scheduler_config: dict[str, Any] | None = None
        """Of the estimator `proposal`."""
        num_samples_per_ray_proposal: int = 64
        """Of the estimator `proposal`."""

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Keep the references and make what chooses samples."""
        super().configure(*args, **kwargs)
        check_field(self.geometry, "forward_density", "a geometry with a density, such as implicit-volume")

    def absorption(
        self, samples: RaySamples, geometry: GeometryOutput, directions: Float[Tensor, "S 3"]
    ) -> Float[Tensor, "S"]:
        """The density."""
        assert geometry.density is not None
        return geometry.density.reshape(-1)

    def rough_density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 1"]:
        """The density."""
        return self.geometry.forward_density(points)

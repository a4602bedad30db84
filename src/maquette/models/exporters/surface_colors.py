"""The colour that a surface point of a field shows."""

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.models.geometry.base import BaseGeometry
from maquette.models.materials.base import BaseMaterial
from maquette.ops.volume import alpha_composite

OUTSIDE = 0.25
"""Share of the depth that is looked at before the surface: density begins outside of an isosurface."""


class SurfaceColors:
    """Albedo of surface points, as a ray that enters straight through the surface would see it.

    The colour of a volume is trained where its density stops rays, a little inside of the isosurface; on the
    isosurface itself it may be anything. So `samples` points along the inward normal are composited front to
    back (`ops.volume.alpha_composite`), the weights normalised to one. A geometry without density is asked at
    the surface only.

    Args:
        geometry: gives features and density of world points.
        material: gives albedo of features.
        samples: points along the normal; 1 asks at the surface only.
        depth: length of the way through the surface, world units.
    """

    def __init__(self, geometry: BaseGeometry, material: BaseMaterial, samples: int, depth: float) -> None:
        self.geometry = geometry
        self.material = material
        self.samples = samples
        self.depth = depth

    @torch.no_grad()
    def __call__(self, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Albedo in [0, 1] of surface points with unit outward normals, world frame."""
        if self.samples <= 1 or self.depth <= 0.0:
            return self._albedo(self.geometry.export(points)["features"])
        offsets = torch.linspace(-OUTSIDE, 1.0 - OUTSIDE, self.samples, device=points.device) * self.depth
        along = points[:, None] - offsets[:, None] * normals[:, None]
        field = self.geometry(along.reshape(-1, 3), output_normal=False)
        if "density" not in field:
            return self._albedo(self.geometry.export(points)["features"])
        albedo = self._albedo(field["features"]).reshape(len(points), self.samples, 3)
        weights = self._weights(field["density"].reshape(len(points), self.samples))
        return (weights[..., None] * albedo).sum(dim=1)

    def _albedo(self, features: Float[Tensor, "N F"]) -> Float[Tensor, "N 3"]:
        return self.material.export(features)["albedo"][..., :3].clamp(0.0, 1.0)

    def _weights(self, density: Float[Tensor, "N S"]) -> Float[Tensor, "N S"]:
        """Rows sum to one; where there is no density at all, every sample counts the same."""
        weights = alpha_composite(density, torch.full_like(density, self.depth / self.samples))
        total = weights.sum(dim=-1, keepdim=True)
        even = torch.full_like(weights, 1.0 / self.samples)
        return torch.where(total > 1e-6, weights / total.clamp(min=1e-6), even)

"""What a surface point of any geometry shows: its colour and the other maps of its material."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.models.geometry.base import BaseExplicitGeometry, BaseGeometry
from maquette.models.materials.base import BaseMaterial
from maquette.ops.volume import alpha_composite

OUTSIDE = 0.25
"""Share of the depth that is looked at before the surface: density begins outside of an isosurface."""
BUMP = "bump"
"""The only map that holds directions."""


class SurfaceColors:
    """Material of surface points, as a ray that enters straight through the surface would see it.

    The colour of a volume is trained where its density stops rays, a little inside of the isosurface; on the
    isosurface itself it may be anything. So `samples` points along the inward normal are composited front to
    back (`ops.volume.alpha_composite`), the weights normalised to one. A geometry without density (a signed
    distance, triangles) is asked at the surface only. A colour that changes with the direction of view is
    taken along the inward normal.

    Args:
        geometry: gives features and density of world points.
        material: gives the maps of features.
        samples: points along the normal; 1 asks at the surface only.
        depth: length of the way through the surface, world units.
    """

    def __init__(self, geometry: BaseGeometry, material: BaseMaterial, samples: int, depth: float) -> None:
        self.geometry = geometry
        self.material = material
        self.samples = samples
        self.depth = depth
        self.is_solid = samples > 1 and depth > 0.0 and not isinstance(geometry, BaseExplicitGeometry)

    def __call__(self, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Albedo in [0, 1] of surface points with unit outward normals, world frame."""
        return self.maps(points, normals)["albedo"]

    @torch.no_grad()
    def maps(self, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"]) -> dict[str, Tensor]:
        """All maps in [0, 1] that the material exports (`BaseMaterial.export`), with three channels of
        albedo.

        Raises:
            ConfigError: the material has no albedo.
        """
        field = self._field(points, normals) if self.is_solid else None
        if field is None:
            return self._exported(self.geometry.export(points).get("features"), points, -normals)
        features, weights, along = field
        directions = (-normals)[:, None].expand_as(along).reshape(-1, 3)
        found = self._exported(features, along.reshape(-1, 3), directions)
        mixed = {
            name: (weights[..., None] * value.reshape(len(points), self.samples, -1)).sum(dim=1)
            for name, value in found.items()
        }
        if BUMP in mixed:
            mixed[BUMP] = (F.normalize(2.0 * mixed[BUMP] - 1.0, dim=-1) + 1.0) * 0.5
        return mixed

    def _field(self, points: Tensor, normals: Tensor) -> tuple[Tensor | None, Tensor, Tensor] | None:
        """Features, weights and positions of the points along the normal; None without density."""
        offsets = torch.linspace(-OUTSIDE, 1.0 - OUTSIDE, self.samples, device=points.device) * self.depth
        along = points[:, None] - offsets[:, None] * normals[:, None]
        field = self.geometry(along.reshape(-1, 3), output_normal=False)
        if "density" not in field:
            self.is_solid = False
            return None
        density = field["density"].reshape(len(points), self.samples)
        return field.get("features"), self._weights(density), along

    def _exported(self, features: Tensor | None, points: Tensor, viewdirs: Tensor) -> dict[str, Tensor]:
        if features is None:
            features = points.new_zeros(len(points), 0)
        maps = self.material.export(features, viewdirs=viewdirs)
        if "albedo" not in maps:
            expected = "a material that exports its albedo, or system.exporter.save_texture=false"
            raise ConfigError("system.material_type", type(self.material).__name__, expected)
        clamped = {name: value.clamp(0.0, 1.0) for name, value in maps.items()}
        return {**clamped, "albedo": clamped["albedo"][..., :3]}

    def _weights(self, density: Float[Tensor, "N S"]) -> Float[Tensor, "N S"]:
        """Rows sum to one; where there is no density at all, every sample counts the same."""
        weights = alpha_composite(density, torch.full_like(density, self.depth / self.samples))
        total = weights.sum(dim=-1, keepdim=True)
        even = torch.full_like(weights, 1.0 / self.samples)
        return torch.where(total > 1e-6, weights / total.clamp(min=1e-6), even)

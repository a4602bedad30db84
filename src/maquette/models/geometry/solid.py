"""The body inside a closed surface as a field of density, for volumes that start from a surface."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.models.geometry.base import BaseGeometry, GeometryOutput
from maquette.models.geometry.density_field import DensityField, Examples, examples_near
from maquette.models.geometry.features import SURFACE_POINTS, surface_of
from maquette.models.geometry.shape_init import check_closed, signed_distance
from maquette.ops.mesh import Mesh
from maquette.ops.point_cloud import sample_surface
from maquette.ops.sdf import volsdf_density

SOFTNESS = 0.01
"""Scale of the density's rise at the surface, in radii of the box: half a voxel of a grid of 100."""
SURFACE = 1 / 5
"""Density at the surface, in densities deep inside. The level of "auto" (`ops.volume.visible_level`) is a
third of what is seen; interpolation between voxels, which flattens the fall, moves its surface outwards."""


class Solid:
    """Density 1 / beta deep inside of a geometry, which falls as in Yariv et al. 2021, eq. 2 and 3, and is
    `SURFACE` of that at its surface, so that a mesh of the density is as large as the geometry.

    Args:
        other: a geometry that can become a closed mesh, on its device.
        new: what will start from it.

    Raises:
        ConfigError: `other` cannot become a mesh.
        RunFailed: its surface is empty.
        UserError: it is not closed.
    """

    def __init__(self, other: BaseGeometry, new: type[BaseGeometry]) -> None:
        mesh = surface_of(other, new)
        check_closed(mesh, f"the surface of {type(other).__name__}")
        self.geometry, self.bbox = other, other.bbox
        self.surface = Mesh(mesh.vertices.detach(), mesh.faces)
        self.distance = signed_distance(self.surface)
        self.beta = SOFTNESS * float(other.cfg.radius)
        self.inset = self.beta * math.log(0.5 / SURFACE)

    @property
    def n_features(self) -> int:
        """Number of features; 0 where the geometry has none."""
        features = self.geometry.export(self.surface.vertices[:1]).get("features")
        return 0 if features is None else int(features.shape[-1])

    @torch.no_grad()
    def evaluate(self, points: Float[Tensor, "*N 3"], output_normal: bool) -> GeometryOutput:
        """Density and features at world points; the features are those that `other` has there."""
        density = volsdf_density(self.distance(points) + self.inset, 1.0 / self.beta)
        return GeometryOutput(density=density, features=self.geometry.export(points).get("features"))

    def examples(self, n: int, radius: float) -> Examples:
        """As of `DensityField.examples`; most of the points are near the surface."""
        return examples_near(self, sample_surface(self.surface, SURFACE_POINTS).points, n, radius)


def as_density(other: BaseGeometry, new: type[BaseGeometry]) -> DensityField | Solid:
    """`other` where it is a field of density, else the solid inside its surface; errors as of `Solid`."""
    return other if isinstance(other, DensityField) else Solid(other, new)

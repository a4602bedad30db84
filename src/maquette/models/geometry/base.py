"""What every geometry is, and how an implicit one becomes a mesh."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.base import BaseModule
from maquette.core.errors import ConfigError, RunFailed
from maquette.core.output import MappingOutput
from maquette.kernels.isosurface import marching_cubes
from maquette.ops.mesh import (
    Mesh,
    component_labels,
    remove_short_components,
    remove_small_components,
    select_faces,
    triangles,
)
from maquette.ops.volume import contract, near_border

log = logging.getLogger(__name__)

ISOSURFACE_METHODS = ("mc", "mt", "mc-cpu")
"""Accepted names; all of them are marching cubes on the device of the geometry."""
POINTS_PER_CHUNK = 2**16
MARGIN = 0.1
"""How much the box of the second pass is larger than the asset, as a fraction."""
REACH = 2
"""The second pass looks at the field within so many nodes of the first pass's surface."""


@dataclass(kw_only=True, eq=False)
class GeometryOutput(MappingOutput):
    """The field at N points."""

    features: Float[Tensor, "*N F"] | None = None
    """What the material reads."""
    density: Float[Tensor, "*N 1"] | None = None
    """Density per world unit (volumes)."""
    sdf: Float[Tensor, "*N 1"] | None = None
    """Signed distance, negative inside (surfaces)."""
    normal: Float[Tensor, "*N 3"] | None = None
    """Unit normals, outwards."""
    shading_normal: Float[Tensor, "*N 3"] | None = None
    """The normals that light sees."""


class BaseGeometry(BaseModule):
    """Something that can be rendered or become a mesh."""

    kind: ClassVar[str] = "geometry"

    @dataclass(kw_only=True)
    class Config(BaseModule.Config):
        """Options that every geometry has."""

    def isosurface(self) -> Mesh:
        """The surface as a mesh in the world frame.

        Where the geometry can, and gradients are switched on, the vertices carry gradients to its parameters.
        """
        raise NotImplementedError

    def export(self, points: Float[Tensor, "*N 3"], **kwargs: Any) -> dict[str, Tensor]:
        """What the material needs to make textures for surface points: `features`."""
        return {}

    @classmethod
    def create_from(
        cls, other: "BaseGeometry", cfg: Any = None, copy_net: bool = True, **kwargs: Any
    ) -> "BaseGeometry":
        """A geometry of this class that starts as what `other` is.

        Args:
            other: the geometry to convert, on its device.
            cfg: config of the new one.
            copy_net: also take along what gives the features (encoding and feature network), where both have
                the same.

        Raises:
            ConfigError: there is no way from `other` to this class.
        """
        raise ConfigError(
            "system.geometry_convert_from",
            type(other).__name__,
            f"a geometry that {cls.__name__} can start from",
        )


class BaseExplicitGeometry(BaseGeometry):
    """A surface that is there as triangles, within a cube of half-width `radius` around the origin."""

    @dataclass(kw_only=True)
    class Config(BaseGeometry.Config):
        """Options that every explicit geometry has."""

        radius: float = 1.0
        """Half the width of the cube, world units."""

        def __post_init__(self) -> None:
            if self.radius <= 0:
                raise ConfigError("system.geometry.radius", self.radius, "a number above 0")

    bbox: Tensor

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Set the box."""
        radius = self.cfg.radius
        self.register_buffer("bbox", torch.tensor([[-radius] * 3, [radius] * 3], dtype=torch.float32))

    def forward(self, points: Float[Tensor, "*N 3"], output_normal: bool = False) -> GeometryOutput:
        """The features at world points on the surface."""
        raise NotImplementedError


class BaseImplicitGeometry(BaseGeometry):
    """A field over a cube of half-width `radius` around the origin."""

    @dataclass(kw_only=True)
    class Config(BaseGeometry.Config):
        """Options that every implicit geometry has."""

        radius: float = 1.0
        """Half the width of the cube, world units."""
        isosurface: bool = True
        """Whether the field may become a mesh."""
        isosurface_method: str = "mt"
        """Marching cubes, by any of its names: mc, mt, mc-cpu."""
        isosurface_resolution: int = 128
        """Nodes per axis."""
        isosurface_threshold: Any = 25.0
        """Value of the field at the surface: a number or "auto"."""
        isosurface_chunk: int = 0
        """Points evaluated at once; 0 chooses."""
        isosurface_coarse_to_fine: bool = True
        """Look again, with all nodes, in a box around what the first pass found."""
        isosurface_deformable_grid: bool = False
        """Let grid nodes move; refused where the geometry does not learn that."""
        isosurface_remove_outliers: bool = True
        """Drop small separate pieces, and closed cavities that nobody can see."""
        isosurface_outlier_n_faces_threshold: Any = 0.01
        """Pieces below this are dropped: a fraction of the largest one's area, or, from 1 on, a number of
        faces."""

        def __post_init__(self) -> None:
            if self.radius <= 0:
                raise ConfigError("system.geometry.radius", self.radius, "a number above 0")
            if self.isosurface_method not in ISOSURFACE_METHODS:
                raise ConfigError(
                    "system.geometry.isosurface_method",
                    self.isosurface_method,
                    f"one of {ISOSURFACE_METHODS}",
                )
            if self.isosurface_resolution < 4:
                raise ConfigError(
                    "system.geometry.isosurface_resolution", self.isosurface_resolution, "an integer >= 4"
                )
            if self.isosurface_chunk < 0:
                raise ConfigError(
                    "system.geometry.isosurface_chunk", self.isosurface_chunk, "an integer >= 0"
                )
            if self.isosurface_threshold != "auto" and not is_number(self.isosurface_threshold):
                raise ConfigError(
                    "system.geometry.isosurface_threshold", self.isosurface_threshold, 'a number, or "auto"'
                )
            least = self.isosurface_outlier_n_faces_threshold
            if not is_number(least) or least < 0:
                raise ConfigError(
                    "system.geometry.isosurface_outlier_n_faces_threshold",
                    least,
                    "a fraction below 1, or a number of faces",
                )

    bbox: Tensor

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Set the box."""
        radius = self.cfg.radius
        self.register_buffer("bbox", torch.tensor([[-radius] * 3, [radius] * 3], dtype=torch.float32))
        self.unbounded = False

    def forward(self, points: Float[Tensor, "*N 3"], output_normal: bool = False) -> GeometryOutput:
        """The field at world points, with unit normals if asked."""
        raise NotImplementedError

    def forward_density(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 1"]:
        """Density at world points, per world unit."""
        raise NotImplementedError

    def forward_field(self, points: Float[Tensor, "*N 3"]) -> tuple[Tensor, Tensor | None]:
        """The field whose level set is the surface (*N, 1), and offsets of grid nodes (*N, 3) or None."""
        raise NotImplementedError

    def forward_level(self, field: Float[Tensor, "*N 1"], threshold: float) -> Float[Tensor, "*N 1"]:
        """The field as a level: zero at the surface, negative inside."""
        raise NotImplementedError

    def auto_threshold(self, field: Float[Tensor, "X Y Z"], box: Float[Tensor, "2 3"]) -> float:
        """The threshold that `isosurface_threshold: auto` stands for."""
        raise NotImplementedError

    def to_unit_cube(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
        """World points as coordinates for an encoding, in [0, 1]."""
        return contract(points, self.bbox, self.unbounded)

    @torch.no_grad()
    def isosurface(self) -> Mesh:
        """The surface as a closed mesh in the world frame.

        `mesh.extras["isosurface_threshold"]` holds the threshold that was used.

        Raises:
            RunFailed: nothing is inside the surface.
            ConfigError: `isosurface` is switched off.
        """
        if not self.cfg.isosurface:
            raise ConfigError("system.geometry.isosurface", False, "true, to make a mesh")
        field = self.grid_field(self.bbox)
        threshold = self._threshold(field)
        mesh = self._extract(field, self.bbox, threshold)
        if self.cfg.isosurface_coarse_to_fine:
            box = self._box_around(mesh)
            mesh = self._extract(self._refined_field(field, box, threshold), box, threshold)
        if self.cfg.isosurface_remove_outliers:
            mesh = without_cavities(mesh)
            mesh = self._without_outliers(mesh)
        mesh.extras["isosurface_threshold"] = threshold
        return mesh

    @torch.no_grad()
    def grid_field(self, box: Float[Tensor, "2 3"]) -> Float[Tensor, "X Y Z"]:
        """The field at the nodes of a regular grid over `box`, `isosurface_resolution` nodes an axis."""
        chunk = self.cfg.isosurface_chunk or POINTS_PER_CHUNK
        n = self.cfg.isosurface_resolution
        values = [self.forward_field(points)[0].reshape(-1) for points in _grid_points(box, n, chunk)]
        return torch.cat(values).reshape(n, n, n)

    def _refined_field(self, coarse: Tensor, box: Tensor, threshold: float) -> Tensor:
        """The field over `box` as `grid_field` gives it, but only around the surface of `coarse`.

        Elsewhere nodes have the value of the nearest node of `coarse`, which is on the same side. What lies
        between the nodes of the first pass, far from its surface, stays unseen: crumbs of a node or two.
        """
        inside = self.forward_level(coarse, threshold) < 0
        axes = _axes(box, self.cfg.isosurface_resolution)
        cell = (self.bbox[1] - self.bbox[0]) / (len(coarse) - 1)
        x, y, z = (((a - low) / c).round().long() for a, low, c in zip(axes, self.bbox[0], cell, strict=True))
        field = coarse[x[:, None, None], y[:, None], z]
        near = near_border(inside, REACH)[x[:, None, None], y[:, None], z].nonzero()
        chunk = self.cfg.isosurface_chunk or POINTS_PER_CHUNK
        for nodes in near.split(chunk):
            i, j, k = nodes.unbind(dim=1)
            points = torch.stack([axes[0][i], axes[1][j], axes[2][k]], dim=-1)
            field[i, j, k] = self.forward_field(points)[0].reshape(-1)
        return field

    def _threshold(self, field: Tensor) -> float:
        wanted = self.cfg.isosurface_threshold
        if wanted != "auto":
            return float(wanted)
        threshold = self.auto_threshold(field, self.bbox)
        log.info("isosurface_threshold: auto chose %.4g", threshold)
        return threshold

    def _extract(self, field: Tensor, box: Tensor, threshold: float) -> Mesh:
        vertices, faces = marching_cubes(self.forward_level(field, threshold), box)
        if len(faces) == 0:
            raise _empty_surface(field, threshold)
        return Mesh(vertices=vertices, faces=faces)

    def _box_around(self, mesh: Mesh) -> Tensor:
        lower, upper = mesh.vertices.amin(dim=0), mesh.vertices.amax(dim=0)
        cell = (self.bbox[1] - self.bbox[0]) / (self.cfg.isosurface_resolution - 1)
        margin = torch.maximum(MARGIN * (upper - lower), cell)
        return torch.stack(
            [(lower - margin).clamp(min=self.bbox[0]), (upper + margin).clamp(max=self.bbox[1])]
        )

    def _without_outliers(self, mesh: Mesh) -> Mesh:
        least = self.cfg.isosurface_outlier_n_faces_threshold
        return remove_small_components(mesh, least) if least < 1 else remove_short_components(mesh, least)


def is_number(value: Any) -> bool:
    """Whether a value of a config is a number (true and false are none)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def without_cavities(mesh: Mesh) -> Mesh:
    """Without the closed pieces that face inwards: hollows inside a body."""
    labels, count = component_labels(mesh)
    a, b, c = triangles(mesh).unbind(dim=1)
    parts = (a * torch.linalg.cross(b, c, dim=-1)).sum(dim=-1)
    signed = parts.new_zeros(count).index_add(0, labels, parts)
    if not torch.any(signed > 0):
        return mesh
    return select_faces(mesh, (signed > 0)[labels])


def _axes(box: Tensor, n: int) -> list[Tensor]:
    """Coordinates of the n nodes along each axis."""
    return [torch.linspace(float(box[0, i]), float(box[1, i]), n, device=box.device) for i in range(3)]


def _grid_points(box: Tensor, n: int, chunk: int) -> Iterator[Tensor]:
    axes = _axes(box, n)
    slices = max(1, chunk // (n * n))
    for x in axes[0].split(slices):
        yield torch.stack(torch.meshgrid(x, axes[1], axes[2], indexing="ij"), dim=-1).reshape(-1, 3)


def _empty_surface(field: Tensor, threshold: float) -> RunFailed:
    finite = bool(torch.isfinite(field).all())
    low, high = (float(field.min()), float(field.max())) if finite else (math.nan, math.nan)
    advice = (
        f"set system.geometry.isosurface_threshold=auto, or to a number between {low:.4g} and {high:.4g}"
        if finite and high > low
        else "the run collapsed: train again with another seed or a lower learning rate"
    )
    return RunFailed(
        "The isosurface is empty: the asset has no surface at this threshold.",
        [f"isosurface_threshold: {threshold:.4g}", f"the field is between {low:.4g} and {high:.4g}"],
        advice,
    )

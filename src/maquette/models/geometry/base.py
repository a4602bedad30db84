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
from maquette.models.geometry.lattices import LATTICE_METHODS, Lattice, lattice_for
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

ISOSURFACE_METHODS = ("mc", "mc-cpu", *LATTICE_METHODS)
"""Accepted names; the first two are marching cubes on the device of the geometry."""
AUTO_NODES = 64
"""Nodes an axis of the grid from which a lattice's automatic threshold is read."""
POINTS_PER_CHUNK = 2**16
"""Points of a field, or of a surface that is shaded, that are evaluated at once without gradients."""
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
    appearance: ClassVar[tuple[str, ...]] = ()
    """Paths of the parameters that give the features and have no part in the shape."""

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
        """mt (marching tetrahedra) or flexicubes, both differentiable; mc or mc-cpu (marching cubes), not."""
        isosurface_resolution: int = 128
        """Nodes per axis (mc), cells per axis (flexicubes), or the size of the tetrahedral grid (mt; 128 has
        290 000 nodes, see `ops.tet_grid`)."""
        isosurface_threshold: Any = 25.0
        """Value of the field at the surface: a number or "auto"."""
        isosurface_chunk: int = 0
        """Points evaluated at once; 0 chooses."""
        isosurface_coarse_to_fine: bool = True
        """Look again, with all nodes, in a box around what the first pass found."""
        isosurface_deformable_grid: bool = False
        """Let nodes move (mt, flexicubes); refused where the geometry does not learn that."""
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

    def forward_level(self, field: Float[Tensor, "*N"], threshold: float) -> Float[Tensor, "*N"]:
        """The field as a level: zero at the surface, negative inside."""
        raise NotImplementedError

    def auto_threshold(self, field: Float[Tensor, "X Y Z"], box: Float[Tensor, "2 3"]) -> float:
        """The threshold that `isosurface_threshold: auto` stands for."""
        raise NotImplementedError

    def to_unit_cube(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
        """World points as coordinates for an encoding, in [0, 1]."""
        return contract(points, self.bbox, self.unbounded)

    def isosurface(self) -> Mesh:
        """The surface as a closed mesh in the world frame.

        With a differentiable method, and gradients switched on, the vertices carry gradients to the field
        and to the offsets of nodes, nothing is cleaned away, a mesh without faces is a possible answer, and
        `mesh.extras` has regularisers: `sdf_regularity` (`ops.level_sets.sign_entropy`) and, of FlexiCubes,
        `deviation`. `mesh.extras["isosurface_threshold"]` holds the threshold that was used.

        Raises:
            RunFailed: nothing is inside the surface, and no gradients are asked for.
            ConfigError: `isosurface` is switched off.
        """
        if not self.cfg.isosurface:
            raise ConfigError("system.geometry.isosurface", False, "true, to make a mesh")
        if self.cfg.isosurface_method in LATTICE_METHODS:
            return self._lattice_surface()
        return self._cubes_surface()

    @torch.no_grad()
    def _cubes_surface(self) -> Mesh:
        """Marching cubes, in two passes."""
        field = self.grid_field(self.bbox)
        threshold = self._threshold(field)
        mesh = self._extract(field, self.bbox, threshold)
        if self.cfg.isosurface_coarse_to_fine:
            box = self._box_around(mesh, 1.0 / (self.cfg.isosurface_resolution - 1))
            mesh = self._extract(self._refined_field(field, box, threshold), box, threshold)
        return self._finished(mesh, threshold)

    def _lattice_surface(self) -> Mesh:
        """The surface in a lattice over the box, then in one over what was found."""
        cfg = self.cfg
        lattice = lattice_for(cfg.isosurface_method, cfg.isosurface_resolution, self.bbox.device)
        threshold = self._threshold()
        box, field = self.bbox, self.lattice_field(lattice, self.bbox)
        if cfg.isosurface_coarse_to_fine:
            vertices, faces, _ = lattice.surface(self.forward_level(field, threshold))
            if len(faces) > 0:
                box = self._box_around(_in_box(Mesh(vertices, faces), box), lattice.cell)
                field = self.lattice_field(lattice, box)
        mesh = self._lattice_mesh(lattice, field, box, threshold)
        if torch.is_grad_enabled():
            return mesh
        if mesh.n_faces == 0 or not bool(torch.isfinite(mesh.vertices).all()):
            raise _empty_surface(field, threshold)
        return self._finished(mesh, threshold)

    def _lattice_mesh(self, lattice: Lattice, field: Tensor, box: Tensor, threshold: float) -> Mesh:
        """The surface in a lattice over `box`; nodes that it depends on are asked again, with gradients."""
        level = self.forward_level(field, threshold)
        needed = lattice.needed(level)
        again, moves = self.forward_field(box[0] + lattice.nodes[needed] * (box[1] - box[0]))
        level = level.index_put((needed,), self.forward_level(again.reshape(-1), threshold))
        offsets = None
        if moves is not None:
            offsets = torch.zeros_like(lattice.nodes).index_put((needed,), moves.to(lattice.nodes))
        training = torch.is_grad_enabled()
        vertices, faces, regularity = lattice.surface(level, offsets, centred=training)
        extras = {"isosurface_threshold": threshold, **(regularity if training else {})}
        return _in_box(Mesh(vertices, faces, extras=extras), box)

    def _finished(self, mesh: Mesh, threshold: float) -> Mesh:
        if self.cfg.isosurface_remove_outliers:
            mesh = clean(mesh, self.cfg.isosurface_outlier_n_faces_threshold)
        mesh.extras["isosurface_threshold"] = threshold
        return mesh

    @torch.no_grad()
    def lattice_field(self, lattice: Lattice, box: Float[Tensor, "2 3"]) -> Float[Tensor, "N"]:
        """The field at the nodes of a lattice over `box`."""
        points = box[0] + lattice.nodes * (box[1] - box[0])
        chunk = self.cfg.isosurface_chunk or POINTS_PER_CHUNK
        return torch.cat([self.forward_field(some)[0].reshape(-1) for some in points.split(chunk)])

    @torch.no_grad()
    def grid_field(self, box: Float[Tensor, "2 3"], n: int | None = None) -> Float[Tensor, "X Y Z"]:
        """The field at the nodes of a regular grid over `box`, n an axis (`isosurface_resolution`)."""
        chunk = self.cfg.isosurface_chunk or POINTS_PER_CHUNK
        n = n or self.cfg.isosurface_resolution
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

    def _threshold(self, field: Tensor | None = None) -> float:
        """The threshold; "auto" reads it from the field on a regular grid, asked for here if not given."""
        wanted = self.cfg.isosurface_threshold
        if wanted != "auto":
            return float(wanted)
        field = self.grid_field(self.bbox, AUTO_NODES) if field is None else field
        threshold = self.auto_threshold(field, self.bbox)
        log.info("isosurface_threshold: auto chose %.4g", threshold)
        return threshold

    def _extract(self, field: Tensor, box: Tensor, threshold: float) -> Mesh:
        vertices, faces = marching_cubes(self.forward_level(field, threshold), box)
        if len(faces) == 0:
            raise _empty_surface(field, threshold)
        return Mesh(vertices=vertices, faces=faces)

    def _box_around(self, mesh: Mesh, cell: float) -> Tensor:
        """A box with a margin of at least a cell, whose size is given for a box of one."""
        lower, upper = mesh.vertices.amin(dim=0), mesh.vertices.amax(dim=0)
        margin = torch.maximum(MARGIN * (upper - lower), cell * (self.bbox[1] - self.bbox[0]))
        return torch.stack(
            [(lower - margin).clamp(min=self.bbox[0]), (upper + margin).clamp(max=self.bbox[1])]
        )


def is_number(value: Any) -> bool:
    """Whether a value of a config is a number (true and false are none)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_box(mesh: Mesh, box: Tensor) -> Mesh:
    """From the unit cube into a box."""
    return mesh.replace(vertices=box[0] + mesh.vertices * (box[1] - box[0]))


def clean(mesh: Mesh, least: float) -> Mesh:
    """Without cavities, and without pieces below `least`: a share of the largest one's area, or faces."""
    mesh = without_cavities(mesh)
    return remove_small_components(mesh, least) if least < 1 else remove_short_components(mesh, int(least))


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
        "The isosurface is empty: the asset has no surface at this threshold."
        if finite
        else "There is no isosurface: the field has values that are not finite.",
        [f"isosurface_threshold: {threshold:.4g}", f"the field is between {low:.4g} and {high:.4g}"],
        advice,
    )

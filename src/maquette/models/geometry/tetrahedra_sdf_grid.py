"""A signed distance at the nodes of a grid of tetrahedra, whose surface trains (Shen et al. 2021, DMTet)."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maquette.core.errors import ConfigError, RunFailed
from maquette.core.registry import register
from maquette.models.geometry.base import (
    POINTS_PER_CHUNK,
    BaseGeometry,
    BaseImplicitGeometry,
    clean,
    is_number,
)
from maquette.models.geometry.features import FeaturedSurface, surface_of
from maquette.models.geometry.implicit_sdf import ImplicitSDF
from maquette.models.geometry.lattices import LATTICE_METHODS, Lattice, lattice_for
from maquette.models.geometry.shape_init import check_closed, check_shape_init, signed_distance, target_shape
from maquette.ops.mesh import Mesh, bounding_box

MARGIN = 0.1
"""How much the box of the grid is larger than what it begins with, as a fraction."""
CERTAIN = 0.5
"""Cells away from a cleaned surface, the side of a node is what that surface says."""


@register("tetrahedra-sdf-grid")
class TetrahedraSDFGrid(FeaturedSurface):
    """Signed distances and offsets of the nodes of a grid, and features on the surface between them."""

    @dataclass(kw_only=True)
    class Config(FeaturedSurface.Config):
        """Options."""

        isosurface_method: str = "mt"
        """mt (marching tetrahedra) or flexicubes (a regular grid, with learned weights of its cells)."""
        isosurface_resolution: int = 128
        """Size of the grid: 290 000 nodes for 128 (mt, see `ops.tet_grid`), cells per axis (flexicubes)."""
        isosurface_deformable_grid: bool = True
        """Let nodes move."""
        isosurface_remove_outliers: bool = False
        """Drop small separate pieces, and cavities that nobody can see; never while the surface trains."""
        isosurface_outlier_n_faces_threshold: Any = 0.01
        """Pieces below this are dropped: a fraction of the largest one's area, or, from 1 on, a number of
        faces."""
        shape_init: str | None = None
        """Shape to begin with: sphere, ellipsoid or mesh:PATH."""
        shape_init_params: Any = None
        """Radius; three half-axes; or largest coordinate of the mesh."""
        shape_init_mesh_up: str = "+z"
        """Axis of the file that points up."""
        shape_init_mesh_front: str = "+x"
        """Axis of the file that points to the front."""
        force_shape_init: bool = False
        """Begin with the shape even where weights were loaded."""
        geometry_only: bool = False
        """Have no features."""
        fix_geometry: bool = False
        """Train only the features."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.isosurface_method not in LATTICE_METHODS:
                raise ConfigError(
                    "system.geometry.isosurface_method", self.isosurface_method, f"one of {LATTICE_METHODS}"
                )
            if self.isosurface_resolution < 4:
                raise ConfigError(
                    "system.geometry.isosurface_resolution", self.isosurface_resolution, "an integer >= 4"
                )
            least = self.isosurface_outlier_n_faces_threshold
            if not is_number(least) or least < 0:
                raise ConfigError(
                    "system.geometry.isosurface_outlier_n_faces_threshold",
                    least,
                    "a fraction below 1, or a number of faces",
                )
            check_shape_init(
                self.shape_init, self.shape_init_params, self.shape_init_mesh_up, self.shape_init_mesh_front
            )

    isosurface_bbox: Tensor
    """The box that the grid fills, within `bbox`."""
    sdf: Tensor
    """At each node, negative inside; of any scale."""

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Build the grid, and begin with the shape if there is one."""
        super().configure()
        lattice = self.lattice
        n = len(lattice.nodes)
        self.register_buffer("isosurface_bbox", self.bbox.clone())
        self._register("sdf", torch.zeros(n, 1))
        if self.cfg.isosurface_deformable_grid:
            self._register("deformation", torch.zeros(n, 3))
        if lattice.n_weights:
            self._register("cell_weights", torch.zeros(lattice.n_weights))
        self._kept: tuple[Any, Mesh] | None = None
        self.initialize_shape()

    @property
    def has_features(self) -> bool:
        """Whether there are features to learn."""
        return self.cfg.n_feature_dims > 0 and not self.cfg.geometry_only

    @property
    def lattice(self) -> Lattice:
        """The grid in the unit cube, on the device of the box."""
        return lattice_for(self.cfg.isosurface_method, self.cfg.isosurface_resolution, self.bbox.device)

    @property
    def nodes(self) -> Float[Tensor, "N 3"]:
        """World positions of the nodes before they move."""
        box = self.isosurface_bbox
        return box[0] + self.lattice.nodes * (box[1] - box[0])

    @torch.no_grad()
    def initialize_shape(self, seed: int = 0) -> None:
        """Make the surface that of `shape_init`; nothing without one. The seed means nothing here.

        Raises:
            MissingFileError: the mesh is not there.
            UserError: the mesh is not closed.
        """
        cfg = self.cfg
        if cfg.shape_init:
            up, front = cfg.shape_init_mesh_up, cfg.shape_init_mesh_front
            self.sdf.copy_(target_shape(cfg.shape_init, cfg.shape_init_params, up, front)(self.nodes))

    def isosurface(self) -> Mesh:
        """The surface as a closed mesh in the world frame.

        With gradients switched on, and unless `fix_geometry` is set, vertices carry gradients to distances
        and offsets, a mesh without faces is a possible answer, and `mesh.extras` has the regularisers of
        `BaseImplicitGeometry.isosurface`. Otherwise the mesh is kept until the grid changes.

        Raises:
            RunFailed: nothing is inside the surface, and no gradients are asked for.
        """
        if torch.is_grad_enabled() and not self.cfg.fix_geometry:
            return self._surface(training=True)
        key = self._state()
        if self._kept is None or self._kept[0] != key:
            self._kept = key, self._still_surface()
        return self._kept[1].replace(extras={})

    @classmethod
    @torch.no_grad()
    def create_from(
        cls, other: BaseGeometry, cfg: Any = None, copy_net: bool = True, **kwargs: Any
    ) -> "TetrahedraSDFGrid":
        """A grid with the surface of another geometry.

        The same grid is copied. A field without offsets is sampled at the nodes, in a box around its surface;
        that of a density is divided by the threshold and clamped to one. Anything else that can become a
        closed mesh (another grid, too, and a field whose nodes move) gives its signed distance.

        Raises:
            ConfigError: `other` cannot become a mesh.
            RunFailed: its surface is empty.
            UserError: its mesh is not closed.
        """
        mesh = surface_of(other, cls)
        instance = cls(cfg).to(mesh.vertices.device)
        if isinstance(other, TetrahedraSDFGrid) and instance._same_grid(other):
            instance._copy(other)
        elif isinstance(other, BaseImplicitGeometry) and not other.cfg.isosurface_deformable_grid:
            instance._sample(other, mesh)
        else:
            instance._measure(mesh)
        if copy_net:
            instance.inherit_features(other, mesh)
        return instance

    def _register(self, name: str, value: Tensor) -> None:
        """A parameter, or where the geometry is fixed a buffer."""
        if self.cfg.fix_geometry:
            self.register_buffer(name, value)
        else:
            self.register_parameter(name, nn.Parameter(value))

    def _load(self, weights: str) -> None:
        super()._load(weights)
        if self.cfg.force_shape_init:
            self.initialize_shape()

    def _surface(self, training: bool) -> Mesh:
        moves, weights = getattr(self, "deformation", None), getattr(self, "cell_weights", None)
        vertices, faces, regularity = self.lattice.surface(self.sdf[:, 0], moves, weights, centred=training)
        box = self.isosurface_bbox
        extras: dict[str, Any] = dict(regularity) if training else {}
        return Mesh(box[0] + vertices * (box[1] - box[0]), faces, extras=extras)

    @torch.no_grad()
    def _still_surface(self) -> Mesh:
        mesh = self._surface(training=False)
        if mesh.n_faces == 0 or not bool(torch.isfinite(mesh.vertices).all()):
            raise _no_surface(self.sdf)
        if self.cfg.isosurface_remove_outliers:
            mesh = clean(mesh, self.cfg.isosurface_outlier_n_faces_threshold)
        return mesh

    def _state(self) -> Any:
        """Changes whenever the grid does."""
        names = ("sdf", "deformation", "cell_weights", "isosurface_bbox")
        held = [getattr(self, name) for name in names if hasattr(self, name)]
        return [(value.data_ptr(), value._version, value.device) for value in held]

    def _same_grid(self, other: "TetrahedraSDFGrid") -> bool:
        """Whether this grid, in the same box, can hold all that makes the surface of the other one."""
        keys = ("isosurface_method", "isosurface_resolution", "radius")
        moves = hasattr(self, "deformation") or not hasattr(other, "deformation")
        return moves and all(self.cfg[key] == other.cfg[key] for key in keys)

    def _copy(self, other: "TetrahedraSDFGrid") -> None:
        for name in ("isosurface_bbox", "sdf", "deformation", "cell_weights"):
            if hasattr(self, name) and hasattr(other, name):
                getattr(self, name).copy_(getattr(other, name))

    def _fit_box(self, mesh: Mesh) -> None:
        """Put the grid around a mesh."""
        lower, upper = bounding_box(mesh)
        margin = torch.maximum(MARGIN * (upper - lower), self.lattice.cell * (self.bbox[1] - self.bbox[0]))
        box = torch.stack([lower - margin, upper + margin])
        self.isosurface_bbox.copy_(torch.minimum(torch.maximum(box, self.bbox[0]), self.bbox[1]))

    def _measure(self, mesh: Mesh) -> None:
        """Begin with the signed distance to a mesh."""
        check_closed(mesh, "the geometry to convert")
        self._fit_box(mesh)
        self.sdf.copy_(signed_distance(mesh)(self.nodes))

    def _sample(self, other: BaseImplicitGeometry, mesh: Mesh) -> None:
        """Begin with the level of a field whose cleaned surface is `mesh`."""
        self._fit_box(mesh)
        threshold = mesh.extras["isosurface_threshold"]
        fields = [other.forward_field(points)[0] for points in self.nodes.split(POINTS_PER_CHUNK)]
        level = other.forward_level(torch.cat(fields), threshold)
        if not isinstance(other, ImplicitSDF):
            level = (level / max(abs(threshold), 1e-6)).clamp(-1.0, 1.0)
        self.sdf.copy_(self._as_cleaned(level, mesh) if other.cfg.isosurface_remove_outliers else level)

    def _as_cleaned(self, level: Tensor, mesh: Mesh) -> Tensor:
        """The level with what was cleaned away (floaters, cavities) on the side where the mesh has it."""
        distance = signed_distance(mesh)(self.nodes)
        cell = self.lattice.cell * float((self.isosurface_bbox[1] - self.isosurface_bbox[0]).max())
        wrong = ((distance < 0) != (level < 0)) & (distance.abs() > CERTAIN * cell)
        return torch.where(wrong, -level, level)


def _no_surface(sdf: Tensor) -> RunFailed:
    low, high = float(sdf.min()), float(sdf.max())
    details = [f"signed distances are between {low:.4g} and {high:.4g}"]
    if math.isnan(low):
        return RunFailed(
            "There is no isosurface: the grid has values that are not finite.",
            details,
            "the run collapsed: train again with another seed or a lower learning rate",
        )
    return RunFailed(
        "The isosurface is empty: no node of the grid is inside.",
        details,
        "begin with system.geometry.shape_init=sphere or with geometry_convert_from, or train longer",
    )

"""A signed distance in a hash grid: a surface that is learned without ever being triangles."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from omegaconf import ListConfig
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.core.registry import register
from maquette.models.geometry.base import BaseGeometry, BaseImplicitGeometry, GeometryOutput, is_number
from maquette.models.geometry.features import DEPTH, SURFACE_POINTS, carry, shown_features, surface_of
from maquette.models.geometry.field_fit import fit_signed_distance
from maquette.models.geometry.shape_init import check_closed, check_shape_init, signed_distance, target_shape
from maquette.models.geometry.slopes import (
    NORMAL_TYPES,
    analytic_slope,
    difference_slope,
    with_point_gradient,
)
from maquette.models.networks import get_encoding, get_mlp
from maquette.models.networks.config import default_encoding, default_network
from maquette.models.networks.hash_grid import HashGrid, ProgressiveBandHashGrid
from maquette.ops.mesh import Mesh
from maquette.ops.point_cloud import sample_surface

SHAPES = ("sphere", "ellipsoid")
FURTHER_NETWORKS = ("normal_network", "deformation_network")
"""Networks that only some configs have."""


@register("implicit-sdf")
class ImplicitSDF(BaseImplicitGeometry):
    """Encoded points to a signed distance (negative inside, world units) and features."""

    appearance = ("feature_network",)

    @dataclass(kw_only=True)
    class Config(BaseImplicitGeometry.Config):
        """Options."""

        isosurface_threshold: Any = 0.0
        """Signed distance at the surface of the mesh, world units."""
        isosurface_remove_outliers: bool = False
        """Drop small separate pieces, and closed cavities that nobody can see."""
        n_input_dims: int = 3
        """Dimensions of a point."""
        n_feature_dims: int = 3
        """Number of features; 0 for none."""
        pos_encoding_config: dict[str, Any] = field(default_factory=default_encoding)
        """Encoding of points."""
        mlp_network_config: dict[str, Any] = field(default_factory=default_network)
        """The networks."""
        normal_type: str | None = "finite_difference"
        """analytic, finite_difference (3 evaluations), finite_difference_laplacian (6), pred, or null."""
        finite_difference_normal_eps: Any = 0.01
        """Step of finite differences, world units; or "progressive": a cell of the finest active level."""
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
        sdf_bias: Any = 0.0
        """Added to the network's distance: a number, sphere or ellipsoid."""
        sdf_bias_params: Any = None
        """Radius of the sphere, or three half-axes of the ellipsoid."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.isosurface_threshold == "auto":
                self.isosurface_threshold = 0.0
            if self.normal_type is not None and self.normal_type not in NORMAL_TYPES:
                raise ConfigError(
                    "system.geometry.normal_type", self.normal_type, f"null or one of {NORMAL_TYPES}"
                )
            self._check_eps()
            check_shape_init(
                self.shape_init, self.shape_init_params, self.shape_init_mesh_up, self.shape_init_mesh_front
            )
            if not is_number(self.sdf_bias):
                if self.sdf_bias not in SHAPES:
                    raise ConfigError(
                        "system.geometry.sdf_bias", self.sdf_bias, f"a number or one of {SHAPES}"
                    )
                check_shape_init(self.sdf_bias, _plain(self.sdf_bias_params), field="sdf_bias")

        def _check_eps(self) -> None:
            eps, encoding = self.finite_difference_normal_eps, self.pos_encoding_config.get("otype")
            if eps == "progressive":
                if encoding != "ProgressiveBandHashGrid":
                    raise ConfigError(
                        "system.geometry.finite_difference_normal_eps",
                        eps,
                        "a number: progressive goes with the encoding ProgressiveBandHashGrid",
                    )
            elif not is_number(eps) or eps <= 0:
                raise ConfigError(
                    "system.geometry.finite_difference_normal_eps", eps, 'a number above 0, or "progressive"'
                )

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Build encoding and networks."""
        super().configure()
        cfg = self.cfg
        self.encoding = get_encoding(cfg.n_input_dims, cfg.pos_encoding_config)
        if cfg.normal_type == "analytic" and isinstance(self.encoding.encoding, HashGrid):
            self.encoding.encoding.normals_only = True
        width = self.encoding.n_output_dims
        self.sdf_network = get_mlp(width, 1, cfg.mlp_network_config)
        if cfg.n_feature_dims > 0:
            self.feature_network = get_mlp(width, cfg.n_feature_dims, cfg.mlp_network_config)
        if cfg.normal_type == "pred":
            self.normal_network = get_mlp(width, 3, cfg.mlp_network_config)
        if cfg.isosurface_deformable_grid:
            self.deformation_network = get_mlp(width, 3, cfg.mlp_network_config)
        self.bias = _bias(cfg)
        self.finite_difference_normal_eps = self._eps()

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Choose the step of finite differences."""
        self.finite_difference_normal_eps = self._eps()

    def initialize_shape(self, seed: int = 0) -> None:
        """Make the field that of `shape_init` (nothing without one, or where `weights` were given).

        Raises:
            MissingFileError: the mesh is not there.
            UserError: the mesh is not closed.
        """
        cfg = self.cfg
        if not cfg.shape_init or (cfg.weights is not None and not cfg.force_shape_init):
            return
        params = _plain(cfg.shape_init_params)
        target = target_shape(cfg.shape_init, params, cfg.shape_init_mesh_up, cfg.shape_init_mesh_front)
        fit_signed_distance(self, target, seed)

    def forward(self, points: Float[Tensor, "*N 3"], output_normal: bool = False) -> GeometryOutput:
        """Signed distance, features and, if asked, normals and `sdf_grad` at world points.

        Normals are unit vectors along the gradient of the distance, outwards. In evaluation they carry no
        gradient.
        """
        if output_normal and self.cfg.normal_type == "analytic":
            return with_point_gradient(partial(self._evaluate, output_normal=True), points)
        return self._evaluate(points, output_normal)

    def forward_sdf(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 1"]:
        """Signed distance at world points, world units."""
        return self._sdf(points, self.encoding(self.to_unit_cube(points)))

    def forward_field(self, points: Float[Tensor, "*N 3"]) -> tuple[Tensor, Tensor | None]:
        """The signed distance; and where `isosurface_deformable_grid` is set, raw offsets of grid nodes."""
        encoded = self.encoding(self.to_unit_cube(points))
        offsets = self.deformation_network(encoded) if self.cfg.isosurface_deformable_grid else None
        return self._sdf(points, encoded), offsets

    def forward_level(self, field: Float[Tensor, "*N"], threshold: float) -> Float[Tensor, "*N"]:
        """Signed distance minus threshold."""
        return field - threshold

    def export(self, points: Float[Tensor, "*N 3"], **kwargs: Any) -> dict[str, Tensor]:
        """Features of surface points."""
        if self.cfg.n_feature_dims == 0:
            return {}
        return {"features": self.feature_network(self.encoding(self.to_unit_cube(points)))}

    @classmethod
    def create_from(
        cls, other: BaseGeometry, cfg: Any = None, copy_net: bool = True, **kwargs: Any
    ) -> "ImplicitSDF":
        """A signed distance with the surface of another geometry, which must be closed.

        An implicit-sdf with the same networks and bias is copied; anything else that can become a mesh is
        fitted. With `copy_net` its features are learned along with it, where their number is the same.
        Predicted normals and offsets of nodes are copied, never fitted.

        Raises:
            ConfigError: `other` cannot become a mesh.
            UserError: its mesh is not closed.
        """
        instance = ImplicitSDF(cfg)
        if isinstance(other, ImplicitSDF) and _same_field(instance, other):
            with_features = copy_net and _same_features(instance, other)
            carry(instance, other, ["encoding", "sdf_network"] + ["feature_network"] * with_features)
            carry(instance, other, FURTHER_NETWORKS)
            return instance.to(other.bbox.device)
        mesh = surface_of(other, ImplicitSDF)
        instance.to(mesh.vertices.device)
        check_closed(mesh, f"the surface of {type(other).__name__}")
        cloud = sample_surface(Mesh(mesh.vertices.detach(), mesh.faces), SURFACE_POINTS)
        features = None
        if copy_net and _same_features(instance, other):
            assert cloud.normals is not None
            extent = cloud.points.amax(dim=0) - cloud.points.amin(dim=0)
            with torch.no_grad():
                features = shown_features(other, cloud.points, cloud.normals, DEPTH * float(extent.max()))
        fit_signed_distance(instance, signed_distance(mesh), 0, cloud.points, features)
        carry(instance, other, FURTHER_NETWORKS, fits=False)
        return instance

    def _evaluate(self, points: Tensor, output_normal: bool) -> GeometryOutput:
        encoded = self.encoding(self.to_unit_cube(points))
        out = GeometryOutput(sdf=self._sdf(points, encoded))
        if self.cfg.n_feature_dims > 0:
            out.features = self.feature_network(encoded)
        if output_normal and self.cfg.normal_type is not None:
            self._add_normal(out, points, encoded)
        return out

    def _add_normal(self, out: GeometryOutput, points: Tensor, encoded: Tensor) -> None:
        assert out.sdf is not None
        kind = self.cfg.normal_type
        if kind == "pred":
            slope = self.normal_network(encoded)
        elif kind == "analytic":
            slope = out.extras["sdf_grad"] = analytic_slope(out.sdf, points)
        else:
            eps, central = self.finite_difference_normal_eps, kind == "finite_difference_laplacian"
            slope = difference_slope(self.forward_sdf, points, out.sdf, eps, self.cfg.radius, central)
            out.extras["sdf_grad"] = slope
        out.normal = out.shading_normal = F.normalize(slope, dim=-1)

    def _sdf(self, points: Tensor, encoded: Tensor) -> Tensor:
        return self.sdf_network(encoded) + self.bias(points)

    def _eps(self) -> float:
        """As given, or the side of a cell of the finest active level (Li et al. 2023, Neuralangelo, 3.1)."""
        if self.cfg.finite_difference_normal_eps != "progressive":
            return float(self.cfg.finite_difference_normal_eps)
        grid = self.encoding.encoding
        assert isinstance(grid, ProgressiveBandHashGrid) and grid.active_levels is not None
        finest = grid.spec.base_resolution * grid.spec.per_level_scale ** (max(grid.active_levels, 1) - 1)
        return 2.0 * self.cfg.radius / finest


def _bias(cfg: Any) -> Callable[[Tensor], Tensor | float]:
    if is_number(cfg.sdf_bias):
        return lambda points: float(cfg.sdf_bias)
    return target_shape(cfg.sdf_bias, _plain(cfg.sdf_bias_params))


def _plain(params: Any) -> Any:
    return list(params) if isinstance(params, ListConfig) else params


def _same_field(one: ImplicitSDF, other: ImplicitSDF) -> bool:
    keys = ("radius", "sdf_bias", "sdf_bias_params", "pos_encoding_config", "mlp_network_config")
    return all(getattr(one.cfg, key) == getattr(other.cfg, key) for key in keys)


def _same_features(one: BaseGeometry, other: BaseGeometry) -> bool:
    return one.cfg.n_feature_dims == getattr(other.cfg, "n_feature_dims", None) > 0

"""A density field in a hash grid: the NeRF of text-to-3D."""

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError, RunFailed
from maquette.core.registry import register
from maquette.core.schedule import Schedule
from maquette.models.geometry.base import BaseGeometry, BaseImplicitGeometry, GeometryOutput, is_number
from maquette.models.geometry.slopes import analytic_slope, difference_slope, with_point_gradient
from maquette.models.networks import get_encoding, get_mlp
from maquette.models.networks.hash_grid import HashGrid
from maquette.ops.activations import get_activation
from maquette.ops.volume import visible_level

log = logging.getLogger(__name__)

BLOBS = ("blob_magic3d", "blob_dreamfusion")
NORMAL_TYPES = ("analytic", "finite_difference", "finite_difference_laplacian", "pred")
ANNEAL_KEYS = ("min_anneal_step", "max_anneal_step", "start_val", "end_val")
FAINT = 0.05
"""Below this largest opacity along any axis a volume counts as empty."""


@register("implicit-volume")
class ImplicitVolume(BaseImplicitGeometry):
    """Encoded points to density and features, each through a network of its own."""

    @dataclass(kw_only=True)
    class Config(BaseImplicitGeometry.Config):
        """Options."""

        n_input_dims: int = 3
        """Dimensions of a point."""
        n_feature_dims: int = 3
        """Number of features; 0 for none."""
        density_activation: str | None = "softplus"
        """Activation that gives the density."""
        density_bias: Any = "blob_magic3d"
        """Added before the activation: a number, blob_magic3d or blob_dreamfusion."""
        density_blob_scale: float = 10.0
        """Height of the blob."""
        density_blob_std: float = 0.5
        """Width of the blob, world units."""
        pos_encoding_config: dict[str, Any] = field(
            default_factory=lambda: {
                "otype": "HashGrid",
                "n_levels": 16,
                "n_features_per_level": 2,
                "log2_hashmap_size": 19,
                "base_resolution": 16,
                "per_level_scale": 1.447269237440378,
            }
        )
        """Encoding of points."""
        mlp_network_config: dict[str, Any] = field(
            default_factory=lambda: {
                "otype": "VanillaMLP",
                "activation": "ReLU",
                "output_activation": "none",
                "n_neurons": 64,
                "n_hidden_layers": 1,
            }
        )
        """The networks."""
        normal_type: str | None = "finite_difference"
        """analytic, finite_difference (3 evaluations), finite_difference_laplacian (6), pred, or null."""
        finite_difference_normal_eps: float = 0.01
        """Step of finite differences, world units."""
        anneal_density_blob_std_config: dict[str, Any] | None = None
        """Change the blob's width: min_anneal_step, max_anneal_step, start_val, end_val."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.isosurface_deformable_grid:
                raise ConfigError(
                    "system.geometry.isosurface_deformable_grid", True, "false: a volume learns no offsets"
                )
            if not is_number(self.density_bias) and self.density_bias not in BLOBS:
                raise ConfigError(
                    "system.geometry.density_bias", self.density_bias, f"a number or one of {BLOBS}"
                )
            if self.normal_type is not None and self.normal_type not in NORMAL_TYPES:
                raise ConfigError(
                    "system.geometry.normal_type", self.normal_type, f"null or one of {NORMAL_TYPES}"
                )
            if self.density_blob_std <= 0:
                raise ConfigError(
                    "system.geometry.density_blob_std", self.density_blob_std, "a number above 0"
                )
            self._check_anneal()

        def _check_anneal(self) -> None:
            anneal = self.anneal_density_blob_std_config
            if anneal is not None and set(anneal) != set(ANNEAL_KEYS):
                raise ConfigError(
                    "system.geometry.anneal_density_blob_std_config", anneal, f"the keys {ANNEAL_KEYS}"
                )

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Build encoding and networks."""
        super().configure()
        cfg = self.cfg
        self.encoding = get_encoding(cfg.n_input_dims, cfg.pos_encoding_config)
        if cfg.normal_type == "analytic" and isinstance(self.encoding.encoding, HashGrid):
            self.encoding.encoding.normals_only = True
        width = self.encoding.n_output_dims
        self.density_network = get_mlp(width, 1, cfg.mlp_network_config)
        if cfg.n_feature_dims > 0:
            self.feature_network = get_mlp(width, cfg.n_feature_dims, cfg.mlp_network_config)
        if cfg.normal_type == "pred":
            self.normal_network = get_mlp(width, 3, cfg.mlp_network_config)
        self.density_activation = get_activation(cfg.density_activation)
        self.blob_std = _blob_schedule(cfg)
        self.density_blob_std = self.blob_std.at(0)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Anneal the blob."""
        self.density_blob_std = self.blob_std.at(global_step, epoch)

    def forward(self, points: Float[Tensor, "*N 3"], output_normal: bool = False) -> GeometryOutput:
        """Density, features and, if asked, normals at world points.

        Normals are unit vectors against the gradient of the density. In evaluation they carry no gradient.
        """
        if output_normal and self.cfg.normal_type == "analytic":
            return with_point_gradient(partial(self._evaluate, output_normal=True), points)
        return self._evaluate(points, output_normal)

    def forward_density(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 1"]:
        """Density at world points, per world unit."""
        return self._density(points, self.encoding(self.to_unit_cube(points)))

    def forward_field(self, points: Float[Tensor, "*N 3"]) -> tuple[Tensor, Tensor | None]:
        """The density; grid nodes do not move."""
        return self.forward_density(points), None

    def forward_level(self, field: Float[Tensor, "*N"], threshold: float) -> Float[Tensor, "*N"]:
        """Threshold minus density."""
        return threshold - field

    def auto_threshold(self, field: Float[Tensor, "X Y Z"], box: Float[Tensor, "2 3"]) -> float:
        """The density at the surface that a rendering shows (`ops.volume.visible_level`)."""
        cell = float((box[1] - box[0]).max()) / (len(field) - 1)
        level, opacity = visible_level(field, cell)
        if not opacity >= FAINT:
            raise RunFailed(
                "The asset is empty: nothing in it is visible.",
                [
                    f"largest opacity along an axis: {opacity:.3g}",
                    f"largest density: {float(field.max()):.3g}",
                ],
                "train longer, or lower system.loss.lambda_sparsity",
            )
        if opacity < 0.5:
            log.warning("the asset is faint (largest opacity %.2f): its mesh is a guess", opacity)
        return level

    def export(self, points: Float[Tensor, "*N 3"], **kwargs: Any) -> dict[str, Tensor]:
        """Features of surface points."""
        if self.cfg.n_feature_dims == 0:
            return {}
        return {"features": self.feature_network(self.encoding(self.to_unit_cube(points)))}

    @classmethod
    @torch.no_grad()
    def create_from(
        cls, other: BaseGeometry, cfg: Any = None, copy_net: bool = True, **kwargs: Any
    ) -> "ImplicitVolume":
        """A volume that starts as a copy of another one with the same networks.

        Raises:
            ConfigError: `other` is no volume.
        """
        if not isinstance(other, ImplicitVolume):
            raise ConfigError("system.geometry_convert_from", type(other).__name__, "an implicit-volume")
        instance = ImplicitVolume(cfg)
        instance.encoding.load_state_dict(other.encoding.state_dict())
        instance.density_network.load_state_dict(other.density_network.state_dict())
        if copy_net and instance.cfg.n_feature_dims == other.cfg.n_feature_dims > 0:
            instance.feature_network.load_state_dict(other.feature_network.state_dict())
        return instance

    def _evaluate(self, points: Tensor, output_normal: bool) -> GeometryOutput:
        encoded = self.encoding(self.to_unit_cube(points))
        density = self._density(points, encoded)
        out = GeometryOutput(density=density)
        if self.cfg.n_feature_dims > 0:
            out.features = self.feature_network(encoded)
        if output_normal:
            out.normal = out.shading_normal = self._normal(points, density, encoded)
        return out

    def _density(self, points: Tensor, encoded: Tensor) -> Tensor:
        raw = self.density_network(encoded) + self._bias(points)
        return self.density_activation(raw)

    def _bias(self, points: Tensor) -> Tensor | float:
        kind, scale, std = self.cfg.density_bias, self.cfg.density_blob_scale, self.density_blob_std
        if kind == "blob_dreamfusion":
            return scale * torch.exp(-0.5 * points.square().sum(dim=-1, keepdim=True) / std**2)
        if kind == "blob_magic3d":
            return scale * (1.0 - _length(points) / std)
        return float(kind)

    def _normal(self, points: Tensor, density: Tensor, encoded: Tensor) -> Tensor | None:
        kind = self.cfg.normal_type
        if kind is None:
            return None
        if kind == "pred":
            return F.normalize(self.normal_network(encoded), dim=-1)
        if kind == "analytic":
            slope = analytic_slope(density, points)
        else:
            eps, central = self.cfg.finite_difference_normal_eps, kind == "finite_difference_laplacian"
            slope = difference_slope(self.forward_density, points, density, eps, self.cfg.radius, central)
        return -F.normalize(slope, dim=-1)


def _length(points: Tensor) -> Tensor:
    """Distance from the origin, with a finite gradient there."""
    return (points.square().sum(dim=-1, keepdim=True) + 1e-12).sqrt()


def _blob_schedule(cfg: Any) -> Schedule:
    anneal = cfg.anneal_density_blob_std_config
    if anneal is None:
        return Schedule.parse(cfg.density_blob_std)
    first, last = int(anneal["min_anneal_step"]), int(anneal["max_anneal_step"])
    return Schedule.parse([first, float(anneal["start_val"]), float(anneal["end_val"]), last])

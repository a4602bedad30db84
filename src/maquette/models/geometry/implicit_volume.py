"""A density field in a hash grid: the NeRF of text-to-3D."""

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.core.registry import register
from maquette.core.schedule import Schedule
from maquette.models.geometry.base import BaseGeometry, GeometryOutput, is_number
from maquette.models.geometry.density_field import (
    DensityField,
    Examples,
    blob_dreamfusion,
    blob_magic3d,
)
from maquette.models.geometry.features import carry
from maquette.models.geometry.field_fit import fit
from maquette.models.geometry.slopes import NORMAL_TYPES
from maquette.models.geometry.solid import as_density
from maquette.models.networks import get_encoding, get_mlp
from maquette.models.networks.config import default_encoding, default_network
from maquette.models.networks.hash_grid import HashGrid
from maquette.ops.activations import get_activation
from maquette.ops.volume import optical_opacity

log = logging.getLogger(__name__)

BLOBS = {"blob_magic3d": blob_magic3d, "blob_dreamfusion": blob_dreamfusion}
FIT_POINTS = 8192
"""Points of a step when a field is fitted to another."""
FIT_STEPS = 200
FIT_RATES = (2e-2, 1e-4)
"""Learning rate of the networks at the first and the last step of such a fit."""
FIT_RATE_OF_ENCODING = 6e-2
"""At the first step; networks of several layers do not bear so much."""
FIELD_KEYS = (
    "radius",
    "density_activation",
    "density_bias",
    "density_blob_scale",
    "density_blob_std",
    "pos_encoding_config",
    "mlp_network_config",
)
"""Options that give the weights their meaning."""
ANNEAL_KEYS = ("min_anneal_step", "max_anneal_step", "start_val", "end_val")


@register("implicit-volume")
class ImplicitVolume(DensityField):
    """Encoded points to density and features, each through a network of its own."""

    appearance = ("feature_network",)

    @dataclass(kw_only=True)
    class Config(DensityField.Config):
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
        pos_encoding_config: dict[str, Any] = field(default_factory=default_encoding)
        """Encoding of points."""
        mlp_network_config: dict[str, Any] = field(default_factory=default_network)
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
            if not is_number(self.density_bias) and self.density_bias not in tuple(BLOBS):
                raise ConfigError(
                    "system.geometry.density_bias", self.density_bias, f"a number or one of {tuple(BLOBS)}"
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
        self.density_activation = get_activation(cfg.density_activation, "density_activation")
        self.blob_std = _blob_schedule(cfg)
        self.density_blob_std = self.blob_std.at(0)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Anneal the blob."""
        self.density_blob_std = self.blob_std.at(global_step, epoch)

    def forward_density(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 1"]:
        """Density at world points, per world unit."""
        return self._density(points, self.encoding(self.to_unit_cube(points)))

    def export(self, points: Float[Tensor, "*N 3"], **kwargs: Any) -> dict[str, Tensor]:
        """Features of surface points."""
        if self.cfg.n_feature_dims == 0:
            return {}
        return {"features": self.feature_network(self.encoding(self.to_unit_cube(points)))}

    @classmethod
    def create_from(
        cls, other: BaseGeometry, cfg: Any = None, copy_net: bool = True, **kwargs: Any
    ) -> "ImplicitVolume":
        """A volume that starts as what another geometry is.

        The weights of an implicit-volume with the same networks and bias are copied. Otherwise this one is
        fitted: to the density of a volume or of Gaussians, or to the `Solid` inside the closed mesh of
        anything else. With `copy_net` it is fitted to the features too, where their number is the same.
        Predicted normals are copied, never fitted.

        Raises:
            ConfigError: `other` has no density and cannot become a mesh.
            UserError: its mesh is not closed.
        """
        source = as_density(other, ImplicitVolume)
        instance = ImplicitVolume(cfg).to(source.bbox.device)
        with_features = copy_net and instance.cfg.n_feature_dims == source.n_features > 0
        same = isinstance(other, ImplicitVolume) and instance.same_networks(other)
        if same:
            carry(instance, other, ["encoding", "density_network"] + ["feature_network"] * with_features)
        else:
            log.info("implicit-volume learns the density of %s", type(other).__name__)
            examples = source.examples(FIT_POINTS, instance.cfg.radius)
            loss = partial(instance.distance_to, examples, with_features)
            fit(instance.fit_groups(), loss, seed=0, steps=FIT_STEPS, rates=FIT_RATES)
        carry(instance, other, ["normal_network"], fits=same)
        return instance

    def fit_groups(self) -> list[dict[str, Any]]:
        """The parameters as `fit` takes them, the encoding with a rate of its own."""
        encoding = list(self.encoding.parameters())
        networks = [one for name, one in self.named_parameters() if not name.startswith("encoding.")]
        return [{"params": encoding, "lr": FIT_RATE_OF_ENCODING}, {"params": networks}]

    def same_networks(self, other: "ImplicitVolume") -> bool:
        """Whether the weights of `other` mean the same here."""
        return all(getattr(self.cfg, key) == getattr(other.cfg, key) for key in FIELD_KEYS)

    def distance_to(
        self, examples: Examples, with_features: bool, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Mean squared difference between this field and examples of another.

        That of log(1 + density), and with `with_features` that of the features, weighted by how opaque the
        other field is.
        """
        points, wanted = examples(generator)
        matter = optical_opacity(wanted["density"], self.cfg.radius)
        ours = self.evaluate(points, False)
        error = (torch.log1p(ours["density"]) - torch.log1p(wanted["density"])).square().mean()
        if not with_features:
            return error
        return error + (matter * (ours["features"] - wanted["features"]).square()).mean()

    def evaluate(self, points: Float[Tensor, "*N 3"], output_normal: bool) -> GeometryOutput:
        """Density, features and, if asked, normals."""
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
        if kind in BLOBS:
            return BLOBS[kind](points, scale, std)
        return float(kind)

    def _normal(self, points: Tensor, density: Tensor, encoded: Tensor) -> Tensor | None:
        kind = self.cfg.normal_type
        if kind is None:
            return None
        if kind == "pred":
            return F.normalize(self.normal_network(encoded), dim=-1)
        return self.slope_normal(points, density, self.cfg.finite_difference_normal_eps)


def _blob_schedule(cfg: Any) -> Schedule:
    anneal = cfg.anneal_density_blob_std_config
    if anneal is None:
        return Schedule.parse(cfg.density_blob_std)
    first, last = int(anneal["min_anneal_step"]), int(anneal["max_anneal_step"])
    return Schedule.parse([first, float(anneal["start_val"]), float(anneal["end_val"]), last])

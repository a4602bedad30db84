"""Colours without light."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.core.registry import register
from maquette.models.materials.base import BaseMaterial
from maquette.models.networks import get_mlp
from maquette.ops.activations import get_activation


@register("no-material")
class NoMaterial(BaseMaterial):
    """The features, activated, are the colour; with `mlp_network_config` a network comes between."""

    @dataclass(kw_only=True)
    class Config(BaseMaterial.Config):
        """Options."""

        n_output_dims: int = 3
        """Channels of the colour."""
        color_activation: str = "sigmoid"
        """Activation that gives the colour."""
        input_feature_dims: int | None = None
        """Number of features, needed with a network."""
        mlp_network_config: dict[str, Any] | None = None
        """Network from features to colour; none by default."""
        requires_normal: bool = False
        """Ask the geometry for normals although they are not used."""

        def __post_init__(self) -> None:
            if self.mlp_network_config is not None and self.input_feature_dims is None:
                raise ConfigError(
                    "system.material.input_feature_dims",
                    None,
                    "the number of features, for mlp_network_config",
                )

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Build the network, if there is one."""
        self.requires_normal = self.cfg.requires_normal
        self.activation = get_activation(self.cfg.color_activation, "color_activation")
        self.network = None
        if self.cfg.mlp_network_config is not None:
            self.network = get_mlp(
                self.cfg.input_feature_dims, self.cfg.n_output_dims, self.cfg.mlp_network_config
            )

    def forward(self, features: Float[Tensor, "*N F"], *args: Any, **kwargs: Any) -> Float[Tensor, "*N C"]:
        """Colours of points; only the features matter."""
        if self.network is not None:
            return self.activation(self.network(features))
        self.check_features(features, "n_output_dims")
        return self.activation(features)

    def export(self, features: Float[Tensor, "*N F"], **kwargs: Any) -> dict[str, Float[Tensor, "*N 3"]]:
        """The colour as albedo."""
        return {"albedo": self(features)[..., :3].clamp(0.0, 1.0)}

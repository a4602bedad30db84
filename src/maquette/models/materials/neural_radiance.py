"""Colours that change with the direction of view."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom
from maquette.core.registry import register
from maquette.models.materials.base import BaseMaterial
from maquette.models.networks import get_encoding, get_mlp
from maquette.ops.activations import get_activation


@register("neural-radiance-material")
class NeuralRadianceMaterial(BaseMaterial):
    """A network from features and encoded direction to radiance (Mildenhall et al. 2020, NeRF, section 3)."""

    @dataclass(kw_only=True)
    class Config(BaseMaterial.Config):
        """Options."""

        input_feature_dims: int = 8
        """Number of features that the geometry gives (its `n_feature_dims`)."""
        color_activation: str = "sigmoid"
        """Activation that gives the colour."""
        dir_encoding_config: dict[str, Any] = field(
            default_factory=lambda: {"otype": "SphericalHarmonics", "degree": 3}
        )
        """Encoding of directions."""
        mlp_network_config: dict[str, Any] = field(
            default_factory=lambda: {
                "otype": "FullyFusedMLP",
                "activation": "ReLU",
                "n_neurons": 16,
                "n_hidden_layers": 2,
            }
        )
        """The network; `FullyFusedMLP` is another name of the only kind there is."""

        def __post_init__(self) -> None:
            if self.input_feature_dims < 0:
                raise ConfigError(
                    "system.material.input_feature_dims", self.input_feature_dims, "an integer >= 0"
                )

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Build encoding and network."""
        self.encoding = get_encoding(3, self.cfg.dir_encoding_config, "dir_encoding_config")
        width = self.cfg.input_feature_dims + self.encoding.n_output_dims
        self.network = get_mlp(width, 3, self.cfg.mlp_network_config)
        self.activation = get_activation(self.cfg.color_activation, "color_activation")

    def forward(
        self,
        features: Float[Tensor, "*N F"],
        viewdirs: Float[Tensor, "*N 3"],
        positions: Float[Tensor, "*N 3"] | None = None,
        shading_normal: Float[Tensor, "*N 3"] | None = None,
        light_positions: Float[Tensor, "*N 3"] | None = None,
        rng: StepRandom | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "*N 3"]:
        """Colours of points seen along `viewdirs`."""
        self.check_features(features, "input_feature_dims")
        encoded = self.encoding((viewdirs + 1.0) * 0.5)
        return self.activation(self.network(torch.cat([features, encoded], dim=-1)))

    def export(
        self, features: Float[Tensor, "*N F"], viewdirs: Float[Tensor, "*N 3"] | None = None, **kwargs: Any
    ) -> dict[str, Float[Tensor, "*N 3"]]:
        """The colour seen along `viewdirs` as albedo; without them, what the middle of all directions
        gives.
        """
        if viewdirs is None:
            viewdirs = features.new_zeros(*features.shape[:-1], 3)
        return {"albedo": self(features, viewdirs).clamp(0.0, 1.0)}

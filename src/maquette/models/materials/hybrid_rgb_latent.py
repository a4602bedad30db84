"""Colours with the channels of a latent behind them."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.core.registry import register
from maquette.models.materials.base import BaseMaterial
from maquette.ops.activations import get_activation


@register("hybrid-rgb-latent-material")
class HybridRGBLatentMaterial(BaseMaterial):
    """The first three features, activated, are RGB; the rest stay what they are, unbounded."""

    @dataclass(kw_only=True)
    class Config(BaseMaterial.Config):
        """Options."""

        n_output_dims: int = 3
        """Channels: three of colour, and those of the latent."""
        color_activation: str = "sigmoid"
        """Activation of the first three."""
        requires_normal: bool = True
        """Ask the geometry for normals, for outputs that show them."""

        def __post_init__(self) -> None:
            if self.n_output_dims < 3:
                raise ConfigError("system.material.n_output_dims", self.n_output_dims, "an integer >= 3")

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Choose the activation."""
        self.requires_normal = self.cfg.requires_normal
        self.activation = get_activation(self.cfg.color_activation, "color_activation")

    def forward(self, features: Float[Tensor, "*N F"], *args: Any, **kwargs: Any) -> Float[Tensor, "*N C"]:
        """Colours and latents of points; only the features matter."""
        self.check_features(features, "n_output_dims")
        return torch.cat([self.activation(features[..., :3]), features[..., 3:]], dim=-1)

    def export(self, features: Float[Tensor, "*N F"], **kwargs: Any) -> dict[str, Float[Tensor, "*N 3"]]:
        """The colour as albedo."""
        return {"albedo": self.activation(features[..., :3]).clamp(0.0, 1.0)}

"""A small network from direction to colour."""

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom
from maquette.core.registry import register
from maquette.models.backgrounds.base import BaseBackground
from maquette.models.networks import get_encoding, get_mlp
from maquette.ops.activations import get_activation


@register("neural-environment-map-background")
class NeuralEnvironmentMapBackground(BaseBackground):
    """Smooth colours over the sphere, learned (Poole et al. 2022, DreamFusion, appendix A.2)."""

    @dataclass(kw_only=True)
    class Config(BaseBackground.Config):
        """Options."""

        color_activation: str = "sigmoid"
        """Activation that gives the colour."""
        dir_encoding_config: dict[str, Any] = field(
            default_factory=lambda: {"otype": "SphericalHarmonics", "degree": 3}
        )
        """Encoding of directions."""
        mlp_network_config: dict[str, Any] = field(
            default_factory=lambda: {
                "otype": "VanillaMLP",
                "activation": "ReLU",
                "n_neurons": 16,
                "n_hidden_layers": 2,
            }
        )
        """Network from encoded direction to colour."""
        eval_color: Any = None
        """One colour in evaluation, a number a channel, instead of the learned ones."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.eval_color is None:
                return
            channels = list(self.eval_color) if isinstance(self.eval_color, list | tuple) else []
            if len(channels) != self.n_output_dims or not all(isinstance(c, int | float) for c in channels):
                expected = f"{self.n_output_dims} numbers"
                raise ConfigError("system.background.eval_color", self.eval_color, expected)

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Build encoding and network."""
        self.encoding = get_encoding(3, self.cfg.dir_encoding_config, "dir_encoding_config")
        self.network = get_mlp(
            self.encoding.n_output_dims, self.cfg.n_output_dims, self.cfg.mlp_network_config
        )
        self.activation = get_activation(self.cfg.color_activation, "color_activation")

    def forward(
        self, dirs: Float[Tensor, "B H W 3"], rng: StepRandom | None = None
    ) -> Float[Tensor, "B H W C"]:
        """Colours of directions."""
        if not self.training and self.cfg.eval_color is not None:
            return dirs.new_tensor(list(self.cfg.eval_color)).expand(*dirs.shape[:-1], -1)
        color = self.activation(self.network(self.encoding((dirs + 1.0) * 0.5)))
        return self.augment(color, rng)

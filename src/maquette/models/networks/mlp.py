"""Small multi-layer perceptrons without biases."""

from __future__ import annotations

import difflib
import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maquette.core.device import autocast_off
from maquette.core.errors import ConfigError, UnknownNameError, asked_for_by
from maquette.core.random import named_generator
from maquette.models.networks.config import NetworkConfig, plain, take
from maquette.models.networks.sphere_mlp import SphereInitMLP
from maquette.ops.activations import get_activation

OPTIONS: dict[str, Any] = {
    "n_neurons": 64,
    "n_hidden_layers": 1,
    "activation": "ReLU",
    "output_activation": "none",
}
SPHERE_OPTIONS: dict[str, Any] = {
    "n_neurons": 64,
    "n_hidden_layers": 1,
    "output_activation": "none",
    "sphere_init_radius": 0.5,
    "inside_out": False,
}
SPHERE = "SphereInitVanillaMLP"
MLPS = ("VanillaMLP", "FullyFusedMLP", "CutlassMLP", SPHERE)
"""Accepted names; the second and third are those of a GPU library and give the same network as the first."""


class MLP(nn.Module):
    """Linear layers without bias, an activation between them, always in float32."""

    def __init__(
        self,
        n_input_dims: int,
        n_output_dims: int,
        n_neurons: int,
        n_hidden_layers: int,
        activation: str,
        output_activation: str,
    ) -> None:
        super().__init__()
        widths = [n_input_dims, *[n_neurons] * n_hidden_layers, n_output_dims]
        self.n_input_dims, self.n_output_dims = n_input_dims, n_output_dims
        self.activation, self.output_activation = (
            get_activation(activation, "activation"),
            get_activation(output_activation, "output_activation"),
        )
        # Odd places belong to the activations, so the names of the weights are those of older checkpoints.
        self.layers = nn.ModuleDict(
            {
                str(2 * i): nn.utils.skip_init(nn.Linear, widths[i], widths[i + 1], bias=False)
                for i in range(len(widths) - 1)
            }
        )
        self.init_from(named_generator(None, "mlp"))

    @torch.no_grad()
    def init_from(self, generator: torch.Generator) -> None:
        """Draw all weights, uniform in plus or minus 1 / sqrt(fan in) (the default of `nn.Linear`)."""
        for weight in self.parameters():
            bound = 1.0 / math.sqrt(weight.shape[1])
            weight.uniform_(-bound, bound, generator=generator)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N F"]:
        """Outputs, in float32 also under autocast."""
        layers = list(self.layers.values())
        with autocast_off(x.device):
            x = x.float()
            for layer in layers[:-1]:
                x = self.activation(layer(x))
            return self.output_activation(layers[-1](x))


def get_mlp(
    n_input_dims: int, n_output_dims: int, cfg: NetworkConfig, field: str = "mlp_network_config"
) -> MLP | SphereInitMLP:
    """The network that `cfg` describes: `otype` and the keys of `OPTIONS`, or of `SPHERE_OPTIONS` for a
    SphereInitVanillaMLP, whose activation is always the softplus. It stands in `field` of the recipe.

    Raises:
        UnknownNameError: no such `otype`.
        UnknownKeyError: an option that it does not have.
        ConfigError: a size that no network has.
    """
    config = plain(cfg)
    name = str(config.pop("otype", "VanillaMLP"))
    if name not in MLPS:
        with asked_for_by("otype"):
            raise UnknownNameError("network", name, difflib.get_close_matches(name, MLPS, n=3))
    if name == SPHERE:
        config.pop("activation", None)
    options = take(config, SPHERE_OPTIONS if name == SPHERE else OPTIONS, field)
    for key, least in (("n_neurons", 1), ("n_hidden_layers", 0)):
        if options[key] < least:
            raise ConfigError(f"{field}.{key}", options[key], f"an integer >= {least}")
    make = SphereInitMLP if name == SPHERE else MLP
    return make(n_input_dims, n_output_dims, **options)

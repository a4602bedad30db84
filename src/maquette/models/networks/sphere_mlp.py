"""A perceptron that starts as the signed distance to a sphere."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from maquette.core.device import autocast_off
from maquette.core.errors import ConfigError
from maquette.core.random import named_generator
from maquette.ops.activations import get_activation

SHARPNESS = 100.0
"""Of the softplus between the layers, which is a ReLU with a second derivative."""
COORDINATES = 3
"""Inputs that are positions; they come first."""


class WeightNormLinear(nn.Module):
    """A linear layer whose rows are `weight_g` times the directions of `weight_v` (Salimans et al. 2016)."""

    def __init__(self, n_input_dims: int, n_output_dims: int) -> None:
        super().__init__()
        self.weight_v = nn.Parameter(torch.empty(n_output_dims, n_input_dims))
        self.weight_g = nn.Parameter(torch.empty(n_output_dims, 1))
        self.bias = nn.Parameter(torch.empty(n_output_dims))

    @torch.no_grad()
    def set(self, weight: Float[Tensor, "O I"], bias: float) -> None:
        """Take these weights and one bias for all rows."""
        self.weight_v.copy_(weight)
        self.weight_g.copy_(weight.norm(dim=1, keepdim=True))
        self.bias.fill_(bias)

    def forward(self, x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        """The linear map."""
        length = self.weight_v.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return F.linear(x, self.weight_v * (self.weight_g / length), self.bias)


class SphereInitMLP(nn.Module):
    """Layers with biases that compute `|x| - radius` at first (Atzmon and Lipman 2020, SAL, theorem 1).

    The first three inputs are coordinates in [-1, 1]: an encoding in front of it has `include_xyz: true`.
    What else comes in has no influence at first. With `inside_out` the sign is turned: a room is inside.

    Raises:
        ConfigError: there are no coordinates among the inputs.
    """

    def __init__(
        self,
        n_input_dims: int,
        n_output_dims: int,
        n_neurons: int,
        n_hidden_layers: int,
        output_activation: str,
        sphere_init_radius: float,
        inside_out: bool,
    ) -> None:
        super().__init__()
        if n_input_dims < COORDINATES or n_hidden_layers < 1:
            got = f"{n_input_dims} inputs, {n_hidden_layers} hidden layers"
            raise ConfigError("mlp.otype", got, "three coordinates and a hidden layer (SphereInitVanillaMLP)")
        self.n_input_dims, self.n_output_dims = n_input_dims, n_output_dims
        self.radius, self.inside_out = sphere_init_radius, inside_out
        self.output_activation = get_activation(output_activation, "output_activation")
        widths = [n_input_dims, *[n_neurons] * n_hidden_layers, n_output_dims]
        self.layers = nn.ModuleDict(
            {str(2 * i): WeightNormLinear(widths[i], widths[i + 1]) for i in range(len(widths) - 1)}
        )
        self.init_from(named_generator(None, "sphere mlp"))

    @torch.no_grad()
    def init_from(self, generator: torch.Generator) -> None:
        """Draw all weights (SAL, theorem 1)."""
        layers = list(self.layers.values())
        for number, layer in enumerate(layers):
            rows, columns = layer.weight_v.shape
            noise = torch.randn(rows, columns, generator=generator)
            if number == len(layers) - 1:
                sign = -1.0 if self.inside_out else 1.0
                layer.set(sign * math.sqrt(math.pi / columns) + 1e-4 * noise, -sign * self.radius)
                continue
            if number == 0:
                noise[:, COORDINATES:] = 0.0
            layer.set(math.sqrt(2.0 / rows) * noise, 0.0)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N F"]:
        """Outputs, in float32 also under autocast."""
        layers = list(self.layers.values())
        with autocast_off(x.device):
            x = x.float()
            for layer in layers[:-1]:
                x = F.softplus(layer(x), beta=SHARPNESS)
            return self.output_activation(layers[-1](x))

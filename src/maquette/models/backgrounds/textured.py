"""A picture all around."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom, named_generator
from maquette.core.registry import register
from maquette.models.backgrounds.base import BaseBackground
from maquette.ops.activations import get_activation
from maquette.ops.environment import direction_to_uv


@register("textured-background")
class TexturedBackground(BaseBackground):
    """A learned equirectangular texture (laid out as in `ops.environment`), bilinear between its texels."""

    @dataclass(kw_only=True)
    class Config(BaseBackground.Config):
        """Options."""

        height: int = 64
        """Rows, zenith to nadir."""
        width: int = 64
        """Columns, once around."""
        color_activation: str = "sigmoid"
        """Activation that gives the colour."""

        def __post_init__(self) -> None:
            super().__post_init__()
            for name in ("height", "width"):
                if getattr(self, name) < 1:
                    raise ConfigError(f"system.background.{name}", getattr(self, name), "an integer above 0")

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Draw the texture."""
        size = (1, self.cfg.n_output_dims, self.cfg.height, self.cfg.width)
        self.texture = nn.Parameter(torch.empty(size))
        self.init_from(named_generator(None, "texture"))
        self.activation = get_activation(self.cfg.color_activation, "color_activation")

    @torch.no_grad()
    def init_from(self, generator: torch.Generator) -> None:
        """Draw all texels, standard normal before the activation."""
        self.texture.normal_(generator=generator)

    def forward(
        self, dirs: Float[Tensor, "B H W 3"], rng: StepRandom | None = None
    ) -> Float[Tensor, "B H W C"]:
        """Colours of directions."""
        uv = direction_to_uv(dirs)
        # One more column on each side, from the other: there is no seam.
        wrapped = torch.cat([self.texture[..., -1:], self.texture, self.texture[..., :1]], dim=-1)
        across = (uv[..., 0] * self.cfg.width + 1.0) / (self.cfg.width + 2.0)
        grid = torch.stack([2.0 * across - 1.0, 1.0 - 2.0 * uv[..., 1]], dim=-1)
        grid = grid.reshape(1, len(dirs) * dirs.shape[1], dirs.shape[2], 2)
        values = F.grid_sample(wrapped, grid, padding_mode="border", align_corners=False)
        color = values[0].permute(1, 2, 0).reshape(*dirs.shape[:-1], self.cfg.n_output_dims)
        return self.augment(self.activation(color), rng)

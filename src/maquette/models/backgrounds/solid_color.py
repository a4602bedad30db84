"""One colour in all directions."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom
from maquette.core.registry import register
from maquette.models.backgrounds.base import BaseBackground


@register("solid-color-background")
class SolidColorBackground(BaseBackground):
    """A fixed or learned colour."""

    @dataclass(kw_only=True)
    class Config(BaseBackground.Config):
        """Options."""

        color: Any = (1.0, 1.0, 1.0)
        """The colour, one number a channel."""
        learned: bool = False
        """Optimise the colour."""

        def __post_init__(self) -> None:
            super().__post_init__()
            channels = list(self.color) if isinstance(self.color, list | tuple) else []
            if len(channels) != self.n_output_dims or not all(isinstance(c, int | float) for c in channels):
                count = f"{self.n_output_dims} numbers (n_output_dims)"
                raise ConfigError("system.background.color", self.color, count)

    env_color: Tensor

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Set the colour."""
        color = torch.tensor([float(value) for value in self.cfg.color])
        if self.cfg.learned:
            self.env_color = nn.Parameter(color)
        else:
            self.register_buffer("env_color", color)

    def forward(
        self, dirs: Float[Tensor, "B H W 3"], rng: StepRandom | None = None
    ) -> Float[Tensor, "B H W C"]:
        """The colour for every direction."""
        color = self.env_color.expand(*dirs.shape[:-1], -1)
        return self.augment(color, rng)

"""What every background is, and the random colours that may take its place in training."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maquette.core.base import BaseModule
from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom


class BaseBackground(BaseModule):
    """A colour for each direction."""

    kind: ClassVar[str] = "background"

    @dataclass(kw_only=True)
    class Config(BaseModule.Config):
        """Options that every background has."""

        n_output_dims: int = 3
        """Channels."""
        random_aug: bool = False
        """In training, sometimes put one random colour behind a whole picture."""
        random_aug_prob: float = 0.5
        """Probability of that, for each picture."""
        random_aug_grey: bool = False
        """Draw greys (all channels the same) instead of colours."""
        random_aug_range: tuple[float, float] = (0.0, 1.0)
        """Lowest and highest value of a random colour."""
        share_aug_bg: bool = False
        """One draw for all pictures of a step instead of one for each."""

        def __post_init__(self) -> None:
            low, high = self.random_aug_range
            if not 0.0 <= self.random_aug_prob <= 1.0:
                raise ConfigError("system.background.random_aug_prob", self.random_aug_prob, "a probability")
            if low > high:
                raise ConfigError("system.background.random_aug_range", [low, high], "[low, high]")

    def forward(
        self, dirs: Float[Tensor, "B H W 3"], rng: StepRandom | None = None
    ) -> Float[Tensor, "B H W C"]:
        """Colours of unit world directions from the camera; `rng` has a row for each picture."""
        raise NotImplementedError

    def augment(self, color: Float[Tensor, "B H W C"], rng: StepRandom | None) -> Float[Tensor, "B H W C"]:
        """`color`, in training with some pictures replaced by one random colour each (`random_aug`)."""
        if not (self.training and self.cfg.random_aug) or rng is None:
            return color
        drawn, chosen = self._draw(rng)
        picked = drawn.to(color)[:, None, None, :].expand_as(color)
        return torch.where(chosen.to(color.device)[:, None, None, None], picked, color)

    def _draw(self, rng: StepRandom) -> tuple[Float[Tensor, "B C"], Bool[Tensor, "B"]]:
        """A random colour (one channel for a grey) for each picture, and whether it is used."""
        cfg = self.cfg
        low, high = cfg.random_aug_range
        channels = 1 if cfg.random_aug_grey else cfg.n_output_dims
        if not cfg.share_aug_bg:
            drawn = rng.uniform("background/random_color", channels, low=low, high=high)
            return drawn, rng.uniform("background/random_aug") < cfg.random_aug_prob
        shared = [low + (high - low) * rng.shared(f"background/random_color/{i}") for i in range(channels)]
        chosen = rng.shared("background/random_aug") < cfg.random_aug_prob
        views = rng.batch_size
        return torch.tensor(shared).expand(views, -1), torch.tensor(chosen).expand(views)

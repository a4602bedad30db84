"""Colours out of the latent of Stable Diffusion, by a matrix."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maquette.core.errors import ConfigError
from maquette.core.registry import register
from maquette.models.materials.base import BaseMaterial

LATENT_TO_RGB = (
    (0.298, 0.207, 0.208),
    (0.187, 0.286, 0.173),
    (-0.158, 0.189, 0.264),
    (-0.184, -0.271, -0.473),
)
"""Linear fit from the four latent channels of Stable Diffusion 1 to RGB in [-1, 1] (Metzer et al. 2022,
Latent-NeRF, section 3.3)."""


@register("sd-latent-adapter-material")
class StableDiffusionLatentAdapterMaterial(BaseMaterial):
    """RGB of four latent features; the matrix is optimised with everything else."""

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Begin with the known fit."""
        self.adapter = nn.Parameter(torch.tensor(LATENT_TO_RGB))

    def forward(self, features: Float[Tensor, "*N F"], *args: Any, **kwargs: Any) -> Float[Tensor, "*N 3"]:
        """Colours of points; only the features matter."""
        if features.shape[-1] != len(LATENT_TO_RGB):
            raise ConfigError(
                "system.geometry.n_feature_dims",
                features.shape[-1],
                f"{len(LATENT_TO_RGB)}, the channels of a latent",
            )
        return ((features @ self.adapter + 1.0) * 0.5).clamp(0.0, 1.0)

    def export(self, features: Float[Tensor, "*N F"], **kwargs: Any) -> dict[str, Float[Tensor, "*N 3"]]:
        """The colour as albedo."""
        return {"albedo": self(features)}

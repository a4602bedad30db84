"""Sines and cosines of coordinates (Mildenhall et al. 2020, NeRF, eq. 4)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maquette.core.base import Updateable


class Frequency(nn.Module):
    """`sin(2^k pi x), cos(2^k pi x)` for k below `n_frequencies`."""

    frequencies: Tensor

    def __init__(self, n_input_dims: int, n_frequencies: int) -> None:
        super().__init__()
        self.n_output_dims = 2 * n_input_dims * n_frequencies
        octaves = math.pi * 2.0 ** torch.arange(n_frequencies)
        self.register_buffer("frequencies", octaves, persistent=False)

    def band_weights(self) -> Float[Tensor, "K"]:
        """Weight of each octave."""
        return torch.ones_like(self.frequencies)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N F"]:
        """Encoded points: sines of all octaves and dimensions, then cosines."""
        angle = x[:, None, :] * self.frequencies[:, None]
        waves = torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)
        return (waves * self.band_weights()[:, None]).flatten(start_dim=1)


class ProgressiveBandFrequency(Updateable, Frequency):
    """Octaves that fade in over `n_masking_step` steps (Park et al. 2021, Nerfies, eq. 8); 0: all from the
    start.

    Takes coordinates in [0, 1] and reads them as [-1, 1].
    """

    def __init__(self, n_input_dims: int, n_frequencies: int, n_masking_step: int) -> None:
        super().__init__(n_input_dims, n_frequencies)
        self.n_masking_step = n_masking_step
        self.progress = 0.0 if n_masking_step > 0 else 1.0

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Move the band."""
        if self.n_masking_step > 0:
            self.progress = min(global_step / self.n_masking_step, 1.0)

    def band_weights(self) -> Float[Tensor, "K"]:
        """`(1 - cos(pi clamp(K progress - k, 0, 1))) / 2` for octave k of K."""
        count = len(self.frequencies)
        octave = torch.arange(count, device=self.frequencies.device)
        return 0.5 * (1.0 - torch.cos(math.pi * (self.progress * count - octave).clamp(0.0, 1.0)))

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N F"]:
        """Encoded points."""
        return super().forward(x * 2.0 - 1.0)

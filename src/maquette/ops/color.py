"""Display values and linear light (IEC 61966-2-1, sRGB)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def srgb_to_linear(values: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Display (sRGB) values as linear light."""
    return torch.where(values <= 0.04045, values / 12.92, ((values.clamp(min=0) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(values: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Linear light as display (sRGB) values; negative values stay negative, finite gradients everywhere."""
    high = 1.055 * values.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(values <= 0.0031308, values * 12.92, high)

"""From signed distances along rays to what volume rendering integrates.

A signed distance is negative inside, in world units. Sharpness (`inv_std`) is one over the width of the soft
shell around the surface in which a surface is seen; it grows while the surface is learned.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def laplace_cdf(x: Float[Tensor, "*N"], inv_std: Float[Tensor, ""] | float) -> Float[Tensor, "*N"]:
    """Distribution function of a Laplace distribution with mean 0 and scale 1 / `inv_std`."""
    return 0.5 - 0.5 * torch.sign(x) * torch.expm1(-x.abs() * inv_std)


def volsdf_density(sdf: Float[Tensor, "*N"], inv_std: Float[Tensor, ""] | float) -> Float[Tensor, "*N"]:
    """Density per world unit: `inv_std` deep inside, half of it on the surface (Yariv et al. 2021, VolSDF,
    eq. 2 and 3, with alpha = 1 / beta = `inv_std`)."""
    return inv_std * laplace_cdf(-sdf, inv_std)


def annealed_cosine(true_cosine: Float[Tensor, "*N"], anneal: float) -> Float[Tensor, "*N"]:
    """The slope of the signed distance along the ray, never positive (the annealing of NeuS's authors).

    With `anneal` 0 it is `-(1 - cos) / 2`: every sample counts and surfaces seen from behind learn too; with
    1 it is `min(cos, 0)`: only surfaces that face the ray count.

    Args:
        true_cosine: dot product of the ray's direction and the outward normal.
        anneal: 0 at the start of the training, 1 from the end of the annealing on.
    """
    return -(F.relu(0.5 - 0.5 * true_cosine) * (1.0 - anneal) + F.relu(-true_cosine) * anneal)


def neus_thickness(
    sdf: Float[Tensor, "*N"],
    cosine: Float[Tensor, "*N"] | float,
    delta: Float[Tensor, "*N"] | float,
    inv_std: Float[Tensor, ""] | float,
) -> Float[Tensor, "*N"]:
    """Optical thickness of an interval, `-log(1 - alpha)` with alpha as in Wang et al. 2021, NeuS, eq. 13.

    The distance at both ends is extrapolated from the middle: `sdf -+ cosine delta / 2`. A difference of
    logarithms of the logistic function, so nothing is divided by a number near zero.

    Args:
        sdf: signed distance at the middle of the interval.
        cosine: slope of the distance along the ray, not positive (`annealed_cosine`).
        delta: length of the interval.
        inv_std: sharpness.
    """
    half = 0.5 * cosine * delta
    before, behind = (sdf - half) * inv_std, (sdf + half) * inv_std
    return (F.logsigmoid(before) - F.logsigmoid(behind)).clamp(min=0.0)

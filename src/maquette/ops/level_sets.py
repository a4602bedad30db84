"""What keeps the level at the nodes of a grid in order while a surface trains through it."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def sign_entropy(inside: Float[Tensor, K], outside: Float[Tensor, K]) -> Float[Tensor, ""]:
    """Prefers few changes of sign: removes floaters and what nobody sees inside.

    The mean over crossed edges of the cross-entropy between the sigmoid of each end's level and the sign of
    the other end (Munkberg et al. 2022, nvdiffrec). Zero without edges.

    Args:
        inside: levels of the ends that are inside, negative.
        outside: levels of the other ends.
    """
    return (F.softplus(-inside) + F.softplus(outside)).sum() / max(len(inside), 1)

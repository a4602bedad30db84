"""Light on a surface."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def light_directions(
    positions: Float[Tensor, "*N 3"], light_positions: Float[Tensor, "*N 3"]
) -> Float[Tensor, "*N 3"]:
    """Unit vectors from surface points to the light."""
    return F.normalize(light_positions - positions, dim=-1)


def lambert(
    normal: Float[Tensor, "*N 3"],
    to_light: Float[Tensor, "*N 3"],
    diffuse: Float[Tensor, "*N 3"] | Float[Tensor, "3"],
    ambient: Float[Tensor, "*N 3"] | Float[Tensor, "3"],
) -> Float[Tensor, "*N 3"]:
    """Light that a matte surface sends on, per unit of albedo: `ambient + diffuse max(0, n . l)` (Lambert
    1760).

    The form with an ambient term is that of Poole et al. 2022, DreamFusion, eq. 6.
    """
    cosine = (normal * to_light).sum(dim=-1, keepdim=True).clamp(min=0.0)
    return ambient + diffuse * cosine


def normal_to_color(normal: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """Unit normals as display colours, `(n + 1) / 2`."""
    return (normal + 1.0) * 0.5


def spherical_light(
    towards: Float[Tensor, "B 3"],
    elevation: Float[Tensor, "B"],
    azimuth: Float[Tensor, "B"],
    distance: Float[Tensor, "B"],
) -> Float[Tensor, "B 3"]:
    """A light placed by angles (radians) around the unit direction `towards`; elevation pi/2 lies along it.

    The local frame has `towards` as its z axis (Lin et al. 2023, Magic3D, light sampling).
    """
    z = F.normalize(towards, dim=-1)
    helper = torch.zeros_like(z)
    helper[:, 2] = torch.where(z[:, 2].abs() < 0.99, 1.0, 0.0)
    helper[:, 0] = 1.0 - helper[:, 2]
    x = F.normalize(torch.linalg.cross(helper, z, dim=-1), dim=-1)
    y = torch.linalg.cross(z, x, dim=-1)
    level = torch.cos(elevation)[:, None]
    around = torch.cos(azimuth)[:, None] * x + torch.sin(azimuth)[:, None] * y
    placed: Tensor = distance[:, None] * (level * around + torch.sin(elevation)[:, None] * z)
    return placed

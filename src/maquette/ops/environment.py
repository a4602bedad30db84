"""Light from all directions: equirectangular pictures, and what a surface gathers from them.

The sphere is seen from inside, in the world frame (z up, +x front). The centre column is azimuth 0 (+x), the
picture runs clockwise seen from above (to its right is -y, as for somebody who looks along +x), its left and
right border are -x; row 0 is the zenith. In numbers, with u to the right and v upwards, both in [0, 1]:
u = 1/2 - azimuth / 2 pi, v = 1/2 + elevation / pi.

A picture (h x w texels, values at texel centres) becomes a grid of nodes ((h + 1) x (w + 1), the first and
last row at the poles, the last column repeating the first), so that interpolation knows neither seam nor
pole.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maquette.ops.image import resize

LOBE_HEIGHT = 128
"""Rows of the sharpest picture of `prefilter`; 1.4 degrees each."""
LEVELS = 9
"""Roughnesses that are filtered: 0, 1/8, ... 1."""
DIFFUSE_HEIGHT = 32
_HEIGHTS = ((0.25, LOBE_HEIGHT), (0.5, 64), (1.0, 32))
"""Rows that suffice up to a roughness: the lobe grows with its square."""
_TINY = 1e-12

ZonalKernel = Callable[[Tensor], Tensor]
"""Weight of a direction, given the cosine of its angle to the axis of the lobe."""


def direction_to_uv(directions: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 2"]:
    """Place of world directions (any length) in an equirectangular picture; finite gradients at the poles."""
    x, y, z = directions.unbind(dim=-1)
    squared = x * x + y * y
    on_axis = squared < _TINY
    level = torch.where(on_axis, torch.full_like(squared, _TINY), squared).sqrt()
    azimuth = torch.atan2(y, torch.where(on_axis, torch.full_like(x, math.sqrt(_TINY)), x))
    elevation = torch.atan2(z, level)
    return torch.stack([0.5 - azimuth / (2.0 * math.pi), 0.5 + elevation / math.pi], dim=-1)


def uv_to_direction(uv: Float[Tensor, "*N 2"]) -> Float[Tensor, "*N 3"]:
    """Unit world directions of places in an equirectangular picture."""
    azimuth = (0.5 - uv[..., 0]) * (2.0 * math.pi)
    elevation = (uv[..., 1] - 0.5) * math.pi
    level = torch.cos(elevation)
    parts = [level * torch.cos(azimuth), level * torch.sin(azimuth), torch.sin(elevation)]
    return torch.stack(parts, dim=-1)


def texel_directions(height: int, width: int) -> Float[Tensor, "h w 3"]:
    """Unit world directions of the texel centres of a picture."""
    v = 1.0 - (torch.arange(height) + 0.5) / height
    u = (torch.arange(width) + 0.5) / width
    rows, columns = torch.meshgrid(v, u, indexing="ij")
    return uv_to_direction(torch.stack([columns, rows], dim=-1))


def solid_angles(height: int, width: int) -> Float[Tensor, "h 1 1"]:
    """Steradians of a texel of each row; over the picture they sum to 4 pi."""
    edges = torch.linspace(0.0, math.pi, height + 1, dtype=torch.float64)
    rows = (torch.cos(edges[:-1]) - torch.cos(edges[1:])) * (2.0 * math.pi / width)
    return rows.float()[:, None, None]


def zonal_filter(environment: Float[Tensor, "h w 3"], kernel: ZonalKernel) -> Float[Tensor, "r c 3"]:
    """The weighted mean of the picture around each node's direction, the same lobe everywhere.

    A lobe that only depends on the angle to its axis makes, between two rows, a circular convolution over
    columns, so the sum over all texels takes one Fourier transform a row.
    """
    height, width = environment.shape[:2]
    inner = (torch.arange(height, device=environment.device) + 0.5) * (math.pi / height)
    outer = torch.linspace(0.0, math.pi, height + 1, device=environment.device)[:, None, None]
    around = (torch.arange(width, device=environment.device) - 0.5) * (2.0 * math.pi / width)
    inner = inner[:, None]
    cosine = torch.cos(outer) * torch.cos(inner) + torch.sin(outer) * torch.sin(inner) * torch.cos(around)
    weight = kernel(cosine.clamp(-1.0, 1.0)) * solid_angles(height, width).to(environment)[:, 0]
    spectrum = torch.fft.rfft(weight, dim=-1)
    summed = torch.einsum("oif,ifc->ofc", spectrum, torch.fft.rfft(environment, dim=1).to(spectrum.dtype))
    mean = torch.fft.irfft(summed, n=width, dim=1) / weight.sum(dim=(1, 2))[:, None, None]
    return torch.cat([mean, mean[:, :1]], dim=1).clamp(min=0.0)


def to_nodes(environment: Float[Tensor, "h w 3"]) -> Float[Tensor, "r c 3"]:
    """The picture itself at its nodes: each is the mean of the texels that touch it, poles that of a row."""
    columns = 0.5 * (environment + environment.roll(1, dims=1))
    inner = 0.5 * (columns[:-1] + columns[1:])
    poles = environment[[0, -1]].mean(dim=1, keepdim=True).expand(-1, environment.shape[1], -1)
    nodes = torch.cat([poles[:1], inner, poles[1:]])
    return torch.cat([nodes, nodes[:, :1]], dim=1)


def irradiance(environment: Float[Tensor, "h w 3"]) -> Float[Tensor, "r c 3"]:
    """Light that a matte white surface with each normal sends on: irradiance over pi, at 33 x 65 nodes."""
    small = resize(environment, DIFFUSE_HEIGHT, 2 * DIFFUSE_HEIGHT)
    return zonal_filter(small, lambda cosine: cosine.clamp(min=0.0))


def ggx_lobe(roughness: float) -> ZonalKernel:
    """Weights of the mirror direction's surroundings, seen straight on: D(h) (n . l) with n = v = r.

    Karis 2013, "Real Shading in Unreal Engine 4", the first sum of the split-sum approximation; D is GGX
    (Walter et al. 2007, eq. 33) with alpha the square of the roughness.
    """
    squared = roughness**4

    def weight(cosine: Tensor) -> Tensor:
        half = 0.5 * (1.0 + cosine)
        return cosine.clamp(min=0.0) / (half * (squared - 1.0) + 1.0).square()

    return weight


def prefilter(environment: Float[Tensor, "h w 3"]) -> Float[Tensor, "L r c 3"]:
    """What mirrors of roughness 0, 1/8, ... 1 see in each direction, at 129 x 257 nodes."""
    sharp = resize(environment, LOBE_HEIGHT, 2 * LOBE_HEIGHT)
    return torch.stack([_lobes(sharp, level / (LEVELS - 1)) for level in range(LEVELS)])


def sample_sphere(nodes: Float[Tensor, "r c C"], directions: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N C"]:
    """Bilinear values of nodes in world directions; differentiable to both."""
    grid = _places(directions).reshape(1, 1, math.prod(directions.shape[:-1]), 2)
    values = _bilinear(nodes.permute(2, 0, 1)[None], grid)
    return _as_rows(values, directions)


def sample_lobes(
    levels: Float[Tensor, "L r c C"], directions: Float[Tensor, "*N 3"], roughness: Float[Tensor, "*N 1"]
) -> Float[Tensor, "*N C"]:
    """Values of `prefilter` in mirror directions, linear between levels of roughness (0 to 1)."""
    grid = torch.cat([_places(directions), 2.0 * roughness - 1.0], dim=-1)
    grid = grid.reshape(1, 1, 1, math.prod(directions.shape[:-1]), 3)
    values = _bilinear(levels.permute(3, 0, 1, 2)[None], grid)
    return _as_rows(values, directions)


def _lobes(environment: Tensor, roughness: float) -> Tensor:
    """Nodes of one level, at the resolution of all levels."""
    if roughness == 0.0:
        return to_nodes(environment)
    height = next(rows for limit, rows in _HEIGHTS if roughness <= limit)
    nodes = zonal_filter(resize(environment, height, 2 * height), ggx_lobe(roughness))
    size = (environment.shape[0] + 1, environment.shape[1] + 1)
    grown = F.interpolate(nodes.permute(2, 0, 1)[None], size=size, mode="bilinear", align_corners=True)
    return grown[0].permute(1, 2, 0)


def _places(directions: Tensor) -> Tensor:
    """Coordinates for `grid_sample`: -1 to 1, the second downwards."""
    uv = direction_to_uv(directions)
    return torch.stack([2.0 * uv[..., 0] - 1.0, 1.0 - 2.0 * uv[..., 1]], dim=-1)


def _bilinear(planes: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(planes, grid.to(planes.dtype), padding_mode="border", align_corners=True)


def _as_rows(values: Tensor, directions: Tensor) -> Tensor:
    """What `grid_sample` gives for a single row of places, in the shape of the directions."""
    rows = values.reshape(values.shape[1], values.shape[-1]).T
    return rows.reshape(*directions.shape[:-1], values.shape[1])

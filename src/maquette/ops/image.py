"""Pictures: growing what is painted over holes, so that no seam shows on a mesh; resizing and sampling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def dilate(
    image: Float[Tensor, "H W C"], painted: Bool[Tensor, "H W"], steps: int
) -> tuple[Float[Tensor, "H W C"], Bool[Tensor, "H W"]]:
    """Grow the painted texels outwards by `steps` texels in all eight directions; they keep their values.

    A new texel gets the mean of its painted neighbours. Returns the picture and what is painted now.
    """
    for _ in range(steps):
        if bool(painted.all()):
            break
        total, count = _neighbour_sums(image, painted)
        grown = torch.where(count > 0, total / count.clamp(min=1e-9), image)
        image = torch.where(painted[..., None], image, grown)
        painted = painted | (count[..., 0] > 0)
    return image, painted


def fill_unpainted(image: Float[Tensor, "H W C"], painted: Bool[Tensor, "H W"]) -> Float[Tensor, "H W C"]:
    """Fill the unpainted texels smoothly from the painted ones, also those far away.

    Push-pull (Gortler et al. 1996, The Lumigraph, section 3.4.2). Without a painted texel the picture comes
    back as it is.
    """
    if bool(painted.all()) or not bool(painted.any()):
        return image
    height, width = painted.shape
    weight = painted[..., None].to(image.dtype)
    total, count = _halved(image * weight), _halved(weight)
    coarse = fill_unpainted(total / count.clamp(min=1e-9), count[..., 0] > 0)
    spread = F.interpolate(_planes(coarse), size=(height, width), mode="bilinear", align_corners=False)
    return torch.where(painted[..., None], image, spread[0].permute(1, 2, 0))


def sample_texture(texture: Float[Tensor, "H W C"], uv: Float[Tensor, "N 2"]) -> Float[Tensor, "N C"]:
    """Bilinear values of a texture at coordinates with v upwards; the border repeats outside."""
    grid = torch.stack([2.0 * uv[:, 0] - 1.0, 1.0 - 2.0 * uv[:, 1]], dim=-1)[None, None]
    image = _planes(texture).to(uv.dtype)
    sampled = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled[0, :, 0].T


def resize(image: Float[Tensor, "H W C"], height: int, width: int) -> Float[Tensor, "h w C"]:
    """Resample a picture: by area when it shrinks, bilinear when it grows."""
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    mode, corners = ("area", None) if shrinks else ("bilinear", False)
    resized = F.interpolate(_planes(image), size=(height, width), mode=mode, align_corners=corners)
    return resized[0].permute(1, 2, 0)


def _neighbour_sums(image: Tensor, painted: Tensor) -> tuple[Tensor, Tensor]:
    weight = painted[..., None].to(image.dtype)
    stacked = _planes(torch.cat([image * weight, weight], dim=-1))
    sums = 9.0 * F.avg_pool2d(stacked, kernel_size=3, stride=1, padding=1)[0].permute(1, 2, 0)
    return sums[..., :-1], sums[..., -1:].round()


def _halved(image: Tensor) -> Tensor:
    """Means of blocks of two by two; odd sides are padded with zeros."""
    height, width = image.shape[:2]
    padded = F.pad(_planes(image), (0, width % 2, 0, height % 2))
    return F.avg_pool2d(padded, kernel_size=2)[0].permute(1, 2, 0)


def _planes(image: Tensor) -> Tensor:
    return image.permute(2, 0, 1)[None]

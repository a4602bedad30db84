"""Edges of pictures (Canny 1986, A computational approach to edge detection)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

_NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1))
"""Row and column steps along gradients of 0, 45, 90 and 135 degrees, rows counted downwards."""


def box_blur(images: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B C H W"]:
    """Means of boxes of `size` (odd) pixels; the picture goes on mirrored beyond its border."""
    reach = min(size // 2, images.shape[-1] - 1, images.shape[-2] - 1)
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    return F.avg_pool2d(padded, 2 * reach + 1, stride=1)


def canny(images: Float[Tensor, "B C H W"], low: float, high: float) -> Bool[Tensor, "B H W"]:
    """Thin edges of pictures: ridges of the gradient that reach `high`, followed down to `low`.

    The gradient is that of Sobel's operator, its size the sum of the absolute values of its two parts, in
    values of the pictures a pixel (unnormalised, so up to 8 for values in [0, 1]); of several channels the
    one with the largest gradient counts.
    """
    across, down = _strongest(*_sobel(images))
    size = across.abs() + down.abs()
    ridge = _is_ridge(size, _direction(across, down))
    return _followed(ridge & (size > high), ridge & (size > low))


def _sobel(images: Tensor) -> tuple[Tensor, Tensor]:
    smooth, slope = images.new_tensor([1.0, 2.0, 1.0]), images.new_tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack([smooth[:, None] * slope, slope[:, None] * smooth])[:, None]
    batch, channels, height, width = images.shape
    padded = F.pad(images.reshape(-1, 1, height, width), (1, 1, 1, 1), mode="replicate")
    found = F.conv2d(padded, kernels).view(batch, channels, 2, height, width)
    return found[:, :, 0], found[:, :, 1]


def _strongest(across: Tensor, down: Tensor) -> tuple[Float[Tensor, "B H W"], Float[Tensor, "B H W"]]:
    channel = (across.abs() + down.abs()).argmax(dim=1, keepdim=True)
    return across.gather(1, channel)[:, 0], down.gather(1, channel)[:, 0]


def _direction(across: Tensor, down: Tensor) -> Int[Tensor, "B H W"]:
    """Which of `_NEIGHBOURS` the gradient points along, or against."""
    return torch.round(torch.atan2(down, across) / (math.pi / 4)).long() % 4


def _is_ridge(size: Float[Tensor, "B H W"], direction: Int[Tensor, "B H W"]) -> Bool[Tensor, "B H W"]:
    """Larger than both neighbours along the gradient; straight plateaus of two pixels keep one of them."""
    ridge = torch.zeros_like(size, dtype=torch.bool)
    for number, (row, column) in enumerate(_NEIGHBOURS):
        before, after = _shifted(size, -row, -column), _shifted(size, row, column)
        exceeds = size > after if row and column else size >= after
        ridge |= (direction == number) & (size > before) & exceeds
    return ridge


def _shifted(size: Tensor, row: int, column: int) -> Tensor:
    """The value that stands `row` down and `column` to the right of each pixel; zero outside."""
    height, width = size.shape[-2:]
    padded = F.pad(size, (1, 1, 1, 1))
    return padded[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width]


def _followed(strong: Bool[Tensor, "B H W"], weak: Bool[Tensor, "B H W"]) -> Bool[Tensor, "B H W"]:
    """The weak pixels that are joined to a strong one."""
    while True:
        grown = F.max_pool2d(strong.float(), 3, stride=1, padding=1).bool() & weak
        if bool((grown == strong).all()):
            return strong
        strong = grown

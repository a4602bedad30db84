"""Looking up textures, with derivatives (Laine et al. 2020, section 3.4)."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from maquette.core.errors import UserError
from maquette.kernels.launch import array
from maquette.kernels.pixels import add_up, over_pixels
from maquette.kernels.texture_kernels import (
    BORDER,
    CLAMP,
    WRAP,
    look_up,
    look_up_backward_to_texels,
    look_up_backward_to_uv,
)

Filter = Literal["linear", "nearest", "linear-mipmap-linear"]
Boundary = Literal["wrap", "clamp", "border"]
BOUNDARIES = {"wrap": WRAP, "clamp": CLAMP, "border": BORDER}
FILTERS = ("linear", "nearest", "linear-mipmap-linear")


def texture(
    image: Float[Tensor, "N h w C"],
    uv: Float[Tensor, "B H W 2"],
    uv_jacobian: Float[Tensor, "B H W 4"] | None = None,
    filter: Filter = "linear",
    boundary: Boundary = "wrap",
) -> Float[Tensor, "B H W C"]:
    """Values of a texture at each pixel; differentiable to `image` and `uv`.

    `u` runs to the right and `v` upwards: row 0 of the image is at v = 1, and the centre of texel
    (row j, column i) is at ((i + 0.5) / w, 1 - (j + 0.5) / h).

    Args:
        image: one for each of the B pictures, or one for all of them (N = 1).
        uv: texture coordinates.
        uv_jacobian: their change per pixel (du/dx, du/dy, dv/dx, dv/dy) as `interpolate_jacobian` gives it;
            chooses the level of detail and gets no gradient itself.
        filter: "nearest" texel, "linear" between four of them, or "linear-mipmap-linear": that in the two of
            a series of ever smaller images, made on the fly, whose texels are as large as a pixel (Williams
            1983, "Pyramidal parametrics").
        boundary: what is outside of [0, 1]: the image again ("wrap"), its outermost texels ("clamp") or
            zeros ("border").

    Raises:
        UserError: an unknown filter or boundary, or a filter with mipmaps without `uv_jacobian`.
    """
    if filter not in FILTERS or boundary not in BOUNDARIES:
        wanted = f"one of {FILTERS}, boundary one of {tuple(BOUNDARIES)}"
        raise UserError(f"Cannot look up a texture with {filter=}, {boundary=}; filter is {wanted}.")
    if len(image) not in (1, len(uv)) or image.shape[1] < 1 or image.shape[2] < 1:
        raise UserError(
            f"There are images {tuple(image.shape)} for {len(uv)} pictures: one, or one for each."
        )
    mipmaps = filter == "linear-mipmap-linear"
    if mipmaps and uv_jacobian is None:
        raise UserError("A texture with mipmaps needs uv_jacobian (see interpolate_jacobian).")
    texels, levels = texture_levels(image.float(), mipmaps)
    slopes = uv.new_zeros(1, 4) if uv_jacobian is None else uv_jacobian.detach().reshape(-1, 4)
    out: Tensor = _Texture.apply(
        texels, uv.float(), slopes.float(), levels, BOUNDARIES[boundary], filter == "nearest"
    )
    return out


def texture_levels(
    image: Float[Tensor, "N h w C"], mipmaps: bool
) -> tuple[Float[Tensor, "N T C"], Int[Tensor, "L 3"]]:
    """All texels of an image and its smaller versions; first texel, height and width of each of them."""
    images = [image]
    while mipmaps and max(images[-1].shape[1:3]) > 1:
        images.append(_halved(images[-1]))
    sizes, first = [], 0
    for one in images:
        sizes.append([first, one.shape[1], one.shape[2]])
        first += one.shape[1] * one.shape[2]
    texels = torch.cat([one.flatten(1, 2) for one in images], dim=1) if mipmaps else image.flatten(1, 2)
    return texels, torch.tensor(sizes, dtype=torch.int32, device=image.device)


def _halved(image: Tensor) -> Tensor:
    """The image with half as many rows and columns (rounded down, at least one), each texel a mean."""
    height, width = image.shape[1:3]
    if height % 2 == 0 and width % 2 == 0:
        rows = image[:, 0::2] + image[:, 1::2]
        return 0.25 * (rows[:, :, 0::2] + rows[:, :, 1::2])
    planes = image.permute(0, 3, 1, 2)
    smaller = F.adaptive_avg_pool2d(planes, (max(1, height // 2), max(1, width // 2)))
    return smaller.permute(0, 2, 3, 1)


class _Texture(Function):
    """(texels, uv) -> values."""

    @staticmethod
    def forward(
        ctx: Any,
        texels: Tensor,
        uv: Tensor,
        slopes: Tensor,
        levels: Tensor,
        boundary: int,
        nearest: bool,
    ) -> Tensor:
        texels, uv, slopes = texels.contiguous(), uv.contiguous(), slopes.contiguous()
        out = texels.new_empty(*uv.shape[:-1], texels.shape[-1])
        args = [*_inputs(texels, uv, slopes, levels), boundary, nearest, array(out.view(-1, out.shape[-1]))]
        over_pixels(look_up, uv.shape[:-1].numel(), args, texels.device)
        ctx.save_for_backward(texels, uv, slopes, levels)
        ctx.how = boundary, nearest
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        texels, uv, slopes, levels = ctx.saved_tensors
        boundary, nearest = ctx.how
        flat = array(grad.reshape(-1, grad.shape[-1]))
        views, pixels = len(uv), uv.shape[1] * uv.shape[2]
        inputs = _inputs(texels, uv, slopes, levels)
        to_texels = to_uv = None
        if ctx.needs_input_grad[0]:
            args = [inputs[1], *inputs[3:], boundary, nearest, flat]
            if len(texels) == 1:
                to_texels = add_up(look_up_backward_to_texels, views, pixels, args, texels[0], shared=True)[
                    None
                ]
            else:
                to_texels = add_up(look_up_backward_to_texels, views, pixels, args, texels)
        if ctx.needs_input_grad[1]:
            to_uv = torch.zeros_like(uv)
            if not nearest:
                args = [*inputs, boundary, flat, array(to_uv.view(-1, 2), wp.vec2)]
                over_pixels(look_up_backward_to_uv, views * pixels, args, texels.device)
        return to_texels, to_uv, None, None, None, None


def _inputs(texels: Tensor, uv: Tensor, slopes: Tensor, levels: Tensor) -> list[Any]:
    """Texels, levels, pixels that share an image, coordinates, their change."""
    per_view = uv.shape[:-1].numel() if len(texels) == 1 else uv.shape[1] * uv.shape[2]
    return [
        array(texels),
        array(levels, wp.vec3i),
        max(1, per_view),
        array(uv.view(-1, 2), wp.vec2),
        array(slopes, wp.vec4),
    ]

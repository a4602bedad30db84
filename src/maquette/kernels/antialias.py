"""Silhouettes without steps, and with gradients."""

from __future__ import annotations

from typing import Any

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from maquette.kernels.antialias_kernels import blend, blend_backward_to_clip, find_silhouettes
from maquette.kernels.fragments import Fragments, corner_indices
from maquette.kernels.half_edges import opposite_half_edges
from maquette.kernels.launch import array, launch_rows
from maquette.kernels.pixel_sums import add_up

SMALLEST = 4096
"""Pixels that are worth a job of their own on a CPU."""


def antialias(
    color: Float[Tensor, "B H W C"],
    fragments: Fragments,
    clip: Float[Tensor, "B V 4"],
    faces: Int[Tensor, "F 3"],
) -> Float[Tensor, "B H W C"]:
    """Blend neighbouring pixels where a silhouette passes between their centres.

    A pixel takes from its neighbour the share by which the silhouette passes its border (Laine et al. 2020,
    section 3.5), so the picture changes continuously with the silhouette and `clip` gets a gradient from it.
    Other than there, a silhouette also counts when its face is too small to show at either pixel, as long as
    it hangs together with the nearer face. Differentiable to `color` and `clip` (x, y and w).

    Args:
        color: any values for each pixel.
        fragments: from `rasterize`.
        clip: the vertices that were drawn.
        faces: the faces that were drawn. Where two faces name the same two vertices their edge is no border
            of the surface; where more than two do it is.

    Raises:
        UserError: a face names a vertex that is not there.
    """
    faces = corner_indices(faces, clip.shape[1], "vertices")
    out: Tensor = _Antialias.apply(color.float(), clip.float(), fragments.face, fragments.depth, faces)
    return out


class _Antialias(Function):
    """(color, clip) -> color."""

    @staticmethod
    def forward(ctx: Any, color: Tensor, clip: Tensor, face: Tensor, depth: Tensor, faces: Tensor) -> Tensor:
        color, clip, depth = color.contiguous(), clip.contiguous(), depth.contiguous()
        height, width = face.shape[1:]
        edges = torch.empty(2 * face.numel(), dtype=torch.int32, device=face.device)
        shifts = torch.zeros(2 * face.numel(), device=face.device)
        mesh = [array(clip, wp.vec4), array(faces, wp.vec3i), array(opposite_half_edges(faces))]
        pixels = [array(face.reshape(-1)), array(depth.view(-1)), height, width]
        args = [*mesh, *pixels, array(edges), array(shifts)]
        launch_rows(find_silhouettes, len(edges), args, face.device, SMALLEST)
        ctx.save_for_backward(color, clip, depth, faces, edges, shifts)
        return _blended(color, shifts, -1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        color, clip, depth, faces, edges, shifts = ctx.saved_tensors
        grad = grad.contiguous()
        to_color = to_clip = None
        if ctx.needs_input_grad[0]:
            to_color = _blended(grad, shifts, 1.0)
        if ctx.needs_input_grad[1]:
            views, height, width, channels = color.shape
            args = [array(clip, wp.vec4), array(faces, wp.vec3i), array(depth.view(-1)), height, width]
            args += [array(edges), array(shifts)]
            args += [array(color.view(-1, channels)), array(grad.view(-1, channels))]
            to_clip = add_up(blend_backward_to_clip, views, 2 * height * width, args, clip, wp.vec4)
        return to_color, to_clip, None, None, None


def _blended(color: Tensor, shifts: Tensor, sign: float) -> Tensor:
    """What pixels take from their neighbours (`sign` -1), or the adjoint of that (1)."""
    _, height, width, channels = color.shape
    out = color.clone()
    args = [array(shifts), height, width, sign]
    args += [array(color.view(-1, channels)), array(out.view(-1, channels))]
    launch_rows(blend, len(shifts) // 2, args, color.device, SMALLEST)
    return out

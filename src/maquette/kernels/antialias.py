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
from maquette.kernels.fragments import Fragments
from maquette.kernels.launch import array, launch, prepare
from maquette.kernels.pixels import over_pixels
from maquette.kernels.topology import topology


def antialias(
    color: Float[Tensor, "B H W C"],
    fragments: Fragments,
    clip: Float[Tensor, "B V 4"],
    faces: Int[Tensor, "F 3"],
) -> Float[Tensor, "B H W C"]:
    """Blend neighbouring pixels where a silhouette passes between their centres.

    A pixel takes from its neighbour the share by which the silhouette passes its border (Laine et al. 2020,
    section 3.5), so the picture changes continuously with the silhouette and `clip` gets a gradient from it.
    A silhouette that is rather upright counts between neighbours in a row, another one in a column.
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
    mesh = topology(faces, clip.shape[1], "vertices")
    seen = fragments.face, fragments.depth, fragments.jacobian
    out: Tensor = _Antialias.apply(color.float(), clip.float(), *seen, mesh)
    return out


class _Antialias(Function):
    """(color, clip) -> color."""

    @staticmethod
    def forward(ctx: Any, color: Tensor, clip: Tensor, *seen: Any) -> Tensor:
        face, depth, jacobian, mesh = seen
        color, clip, depth = color.contiguous(), clip.contiguous(), depth.contiguous()
        height, width = face.shape[1:]
        edges = torch.empty(2 * face.numel(), dtype=torch.int32, device=face.device)
        shifts = torch.empty(2 * face.numel(), device=face.device)
        args = [array(clip, wp.vec4), array(mesh.faces, wp.vec3i), array(mesh.opposite)]
        args += [array(face.reshape(-1)), array(depth.view(-1)), array(jacobian.reshape(-1, 4), wp.vec4)]
        args += [height, width, array(edges), array(shifts)]
        over_pixels(find_silhouettes, face.numel(), args, face.device)
        silhouettes = (edges >= 0).nonzero()[:, 0]
        ctx.save_for_backward(color, clip, depth, mesh.faces, silhouettes, edges, shifts)
        return _blended(color, silhouettes, shifts, False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        color, clip, depth, faces, silhouettes, edges, shifts = ctx.saved_tensors
        grad = grad.contiguous()
        to_color = to_clip = None
        if ctx.needs_input_grad[0]:
            to_color = _blended(grad, silhouettes, shifts, True)
        if ctx.needs_input_grad[1]:
            to_clip = torch.zeros_like(clip)
            _, height, width, channels = color.shape
            mesh = [array(to_clip, wp.vec4), array(clip, wp.vec4), array(faces, wp.vec3i)]
            args = [*mesh, array(depth.view(-1)), height, width]
            args += [array(silhouettes), array(edges), array(shifts)]
            args += [array(color.view(-1, channels)), array(grad.view(-1, channels))]
            _launch(blend_backward_to_clip, silhouettes, args)
        return to_color, to_clip, None, None, None, None


def _blended(color: Tensor, silhouettes: Tensor, shifts: Tensor, adjoint: bool) -> Tensor:
    """What pixels take from their neighbours, or the adjoint of that."""
    width, channels = color.shape[-2:]
    out = color.clone()
    args = [array(shifts), array(silhouettes), width, adjoint]
    args += [array(color.view(-1, channels)), array(out.view(-1, channels))]
    _launch(blend, silhouettes, args)
    return out


def _launch(kernel: Any, silhouettes: Tensor, args: list[Any]) -> None:
    """By one thread on a CPU: silhouettes share pixels and vertices, and are few."""
    if len(silhouettes) > 0:
        prepare(kernel, silhouettes.device)
        launch(kernel, len(silhouettes), args, silhouettes.device)

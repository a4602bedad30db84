"""Values of vertices, spread over the faces that a picture shows (Laine et al. 2020, section 3.3)."""

# mypy: disable-error-code="index, misc, operator"
# (bodies of kernels are Warp's language)

from typing import Any

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from maquette.core.errors import UserError
from maquette.kernels.fragments import Fragments
from maquette.kernels.launch import MODULE_OPTIONS, array
from maquette.kernels.pixels import add_up, over_pixels
from maquette.kernels.topology import topology

wp.set_module_options(MODULE_OPTIONS)


def interpolate(
    values: Float[Tensor, "V C"] | Float[Tensor, "B V C"], fragments: Fragments, faces: Int[Tensor, "F 3"]
) -> Float[Tensor, "B H W C"]:
    """Values at each pixel, perspective-correct; 0 where nothing is.

    Differentiable to the values and, through the weights, to the positions.

    Args:
        values: for each vertex, the same in all views or for each view.
        fragments: from `rasterize`.
        faces: indices into the values: as many faces as were drawn, not necessarily the same indices, so
            that values may belong to corners (texture coordinates).

    Raises:
        UserError: a face names a value that is not there, or there are values for another number of views.
    """
    values, faces = _checked(values, fragments, faces)
    out: Tensor = _Interpolate.apply(values, fragments.barycentric, fragments.face, faces)
    return out


@torch.no_grad()
def interpolate_jacobian(
    values: Float[Tensor, "V C"] | Float[Tensor, "B V C"], fragments: Fragments, faces: Int[Tensor, "F 3"]
) -> Float[Tensor, "B H W C2"]:
    """Change of the interpolated values per pixel to the right and per pixel downwards.

    Channels are d values[0] / dx, d values[0] / dy, d values[1] / dx ...; 0 where nothing is. Not
    differentiable.
    """
    values, faces = _checked(values, fragments, faces)
    out = values.new_zeros(*fragments.face.shape, 2 * values.shape[-1])
    args = _inputs(values, fragments.face, faces)
    args += [array(fragments.jacobian.view(-1, 4), wp.vec4), array(out.view(-1, out.shape[-1]))]
    over_pixels(_spread_jacobian, fragments.face.numel(), args, values.device)
    return out


def _checked(values: Tensor, fragments: Fragments, faces: Tensor) -> tuple[Tensor, Tensor]:
    values = values.float().contiguous()
    if values.ndim == 3 and len(values) != len(fragments.face):
        raise UserError(f"There are values for {len(values)} views, but {len(fragments.face)} were drawn.")
    return values, topology(faces, values.shape[-2], "values").faces


def _inputs(values: Tensor, face: Tensor, faces: Tensor) -> list[Any]:
    """Values with an axis for views, pixels a view (0 where all views share the values), faces of pixels."""
    shared = values.ndim == 2
    per_view = face.numel() if shared else face[0].numel()
    stacked = values[None] if shared else values
    return [array(stacked), array(faces, wp.vec3i), per_view, array(face.reshape(-1))]


class _Interpolate(Function):
    """(values, barycentric) -> values at pixels."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, barycentric: Tensor, face: Tensor, faces: Tensor) -> Tensor:
        out = values.new_empty(*face.shape, values.shape[-1])
        args = _inputs(values, face, faces)
        args += [array(barycentric.view(-1, 2), wp.vec2), array(out.view(-1, out.shape[-1]))]
        over_pixels(_spread, face.numel(), args, values.device)
        ctx.save_for_backward(values, barycentric, face, faces)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, barycentric, face, faces = ctx.saved_tensors
        inputs = _inputs(values, face, faces)
        flat = array(grad.reshape(-1, grad.shape[-1]))
        to_values = to_barycentric = None
        if ctx.needs_input_grad[0]:
            corners, _, seen = inputs[1:]
            args = [corners, seen, array(barycentric.view(-1, 2), wp.vec2), flat]
            shared, views = values.ndim == 2, len(face)
            to_values = add_up(_spread_backward, views, face[0].numel(), args, values, shared=shared)
        if ctx.needs_input_grad[1]:
            to_barycentric = torch.empty_like(barycentric)
            args = [*inputs, flat, array(to_barycentric.view(-1, 2), wp.vec2)]
            over_pixels(_weights_backward, face.numel(), args, values.device)
        return to_values, to_barycentric, None, None


@wp.kernel
def _spread(
    first: wp.int32,
    run: wp.int32,
    values: wp.array3d[wp.float32],
    faces: wp.array[wp.vec3i],
    per_view: wp.int32,
    seen: wp.array[wp.int32],
    barycentric: wp.array[wp.vec2],
    out: wp.array2d[wp.float32],
) -> None:
    begin = first + wp.tid() * run
    for i in range(begin, begin + run):
        if seen[i] >= 0:
            face, view = faces[seen[i]], i / per_view
            u, v = barycentric[i][0], barycentric[i][1]
            for c in range(values.shape[2]):
                last = values[view, face[2], c]
                along_u, along_v = values[view, face[0], c] - last, values[view, face[1], c] - last
                out[i, c] = last + u * along_u + v * along_v
        else:
            for c in range(values.shape[2]):
                out[i, c] = 0.0


@wp.kernel
def _spread_jacobian(
    first: wp.int32,
    run: wp.int32,
    values: wp.array3d[wp.float32],
    faces: wp.array[wp.vec3i],
    per_view: wp.int32,
    seen: wp.array[wp.int32],
    jacobian: wp.array[wp.vec4],
    out: wp.array2d[wp.float32],
) -> None:
    begin = first + wp.tid() * run
    for i in range(begin, begin + run):
        if seen[i] >= 0:
            face, view, slope = faces[seen[i]], i / per_view, jacobian[i]
            for c in range(values.shape[2]):
                last = values[view, face[2], c]
                along_u, along_v = values[view, face[0], c] - last, values[view, face[1], c] - last
                out[i, 2 * c] = slope[0] * along_u + slope[2] * along_v
                out[i, 2 * c + 1] = slope[1] * along_u + slope[3] * along_v


@wp.kernel
def _spread_backward(
    first: wp.int32,
    run: wp.int32,
    sums: wp.int32,
    per_row: wp.int32,
    to_values: wp.array3d[wp.float32],
    faces: wp.array[wp.vec3i],
    seen: wp.array[wp.int32],
    barycentric: wp.array[wp.vec2],
    grad: wp.array2d[wp.float32],
) -> None:
    begin = first + wp.tid() * run
    for i in range(begin, begin + run):
        if seen[i] >= 0:
            face, row = faces[seen[i]], sums + (i - first) / per_row
            u, v = barycentric[i][0], barycentric[i][1]
            for c in range(grad.shape[1]):
                if grad[i, c] != 0.0:
                    wp.atomic_add(to_values, row, face[0], c, u * grad[i, c])
                    wp.atomic_add(to_values, row, face[1], c, v * grad[i, c])
                    wp.atomic_add(to_values, row, face[2], c, (1.0 - u - v) * grad[i, c])


@wp.kernel
def _weights_backward(
    first: wp.int32,
    run: wp.int32,
    values: wp.array3d[wp.float32],
    faces: wp.array[wp.vec3i],
    per_view: wp.int32,
    seen: wp.array[wp.int32],
    grad: wp.array2d[wp.float32],
    to_barycentric: wp.array[wp.vec2],
) -> None:
    begin = first + wp.tid() * run
    for i in range(begin, begin + run):
        if seen[i] >= 0:
            face, view = faces[seen[i]], i / per_view
            to_u, to_v = wp.float32(0.0), wp.float32(0.0)
            for c in range(values.shape[2]):
                last = values[view, face[2], c]
                to_u += grad[i, c] * (values[view, face[0], c] - last)
                to_v += grad[i, c] * (values[view, face[1], c] - last)
            to_barycentric[i] = wp.vec2(to_u, to_v)
        else:
            to_barycentric[i] = wp.vec2()

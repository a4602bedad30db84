"""Triangles to pixels, with derivatives: no graphics driver, no window, CPU and GPU alike.

Laine et al. 2020, "Modular Primitives for High-Performance Differentiable Rendering". `rasterize` finds the
face of each pixel, `interpolate` spreads values of vertices over the picture, `antialias` blends the pixels
at silhouettes so that their position gets a gradient.
"""

from __future__ import annotations

from typing import Any

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from maquette.core.device import is_gpu
from maquette.core.errors import UserError
from maquette.kernels.antialias import antialias
from maquette.kernels.fragments import Fragments
from maquette.kernels.interpolate import interpolate, interpolate_jacobian
from maquette.kernels.launch import array, launch_rows, parts_for
from maquette.kernels.pixels import add_up, over_pixels
from maquette.kernels.rasterize_kernels import (
    LANES,
    NOTHING,
    bound,
    cover_bands,
    cover_faces,
    resolve,
    resolve_backward,
)
from maquette.kernels.topology import topology

__all__ = ["Fragments", "antialias", "interpolate", "interpolate_jacobian", "rasterize", "visible_faces"]

LEAST_ROWS = 8
"""Rows of a picture that are worth a job of their own on a CPU."""


def rasterize(clip: Float[Tensor, "B V 4"], faces: Int[Tensor, "F 3"], height: int, width: int) -> Fragments:
    """The nearest face at each pixel, and the place on it.

    Pixel (row j, column i) has the NDC coordinates ((2i + 1) / W - 1, (2j + 1) / H - 1). Both sides of a face
    count. Seen is what lies between the near and the far plane (-w <= z <= w); corners may be anywhere, also
    behind the camera. A pixel centre exactly on an edge belongs to one of the two faces there; at equal depth
    the face that comes first is seen. Faces without area or with a corner that is not finite are left out.

    Args:
        clip: vertices in clip space, for each view.
        faces: indices of vertices.
        height: rows of the pictures.
        width: columns of the pictures.

    Raises:
        UserError: a face names a vertex that is not there, or a size is below 1.
    """
    faces = topology(faces, clip.shape[1], "vertices").faces
    face, barycentric, depth, jacobian = _Rasterize.apply(clip.float(), faces, height, width)
    return Fragments(face, barycentric, depth, jacobian)


def visible_faces(
    clip: Float[Tensor, "B V 4"], faces: Int[Tensor, "F 3"], height: int, width: int
) -> Int[Tensor, "B H W"]:
    """Only which face each pixel sees, as `rasterize` finds it: as int64, in the lower 31 bits of keys.

    A pixel without a face has the key `NOTHING`. `faces` are int32 and refer to vertices that are there.
    """
    if height < 1 or width < 1:
        raise UserError(f"Cannot draw a picture of {height} x {width} pixels.")
    views, device = len(clip), clip.device
    keys = torch.full((views, height, width), NOTHING, dtype=torch.int64, device=device)
    boxes = torch.empty(views * len(faces), 4, dtype=torch.int32, device=device)
    mesh = [array(clip, wp.vec4), array(faces, wp.vec3i)]
    over_pixels(bound, len(boxes), [*mesh, height, width, array(boxes, wp.vec4i)], device)
    args = [*mesh, array(boxes, wp.vec4i), height, width, array(keys.view(-1))]
    if is_gpu(device):
        launch_rows(cover_faces, LANES * len(boxes), args, device)
        return keys
    bands = parts_for(height, LEAST_ROWS) if views < 4 * torch.get_num_threads() else 1
    launch_rows(cover_bands, views * bands, [bands, *args], device, smallest=1)
    return keys


class _Rasterize(Function):
    """clip -> (face, barycentric, depth, jacobian)."""

    @staticmethod
    def forward(
        ctx: Any, clip: Tensor, faces: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        views = len(clip)
        clip = clip.contiguous()
        keys = visible_faces(clip, faces, height, width)
        face = torch.empty(views, height, width, dtype=torch.int32, device=clip.device)
        barycentric, depth, jacobian = (clip.new_empty(views, height, width, n) for n in (2, 1, 4))
        outputs = [array(face.view(-1)), array(barycentric.view(-1, 2), wp.vec2)]
        outputs += [array(depth.view(-1)), array(jacobian.view(-1, 4), wp.vec4)]
        inputs = [array(clip, wp.vec4), array(faces, wp.vec3i), array(keys.view(-1)), height, width]
        over_pixels(resolve, keys.numel(), [*inputs, *outputs], clip.device)
        ctx.mark_non_differentiable(face, jacobian)
        ctx.save_for_backward(clip, faces, face, barycentric, depth)
        return face, barycentric, depth, jacobian

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _face: Tensor, to_barycentric: Tensor, to_depth: Tensor, _jacobian: Tensor) -> Any:
        clip, faces, face, barycentric, depth = ctx.saved_tensors
        views, pixels = len(clip), face[0].numel()
        args = [array(clip, wp.vec4), array(faces, wp.vec3i), pixels, array(face.view(-1))]
        args += [array(barycentric.view(-1, 2), wp.vec2), array(depth.view(-1))]
        args += [array(to_barycentric.reshape(-1, 2), wp.vec2), array(to_depth.reshape(-1))]
        return add_up(resolve_backward, views, pixels, args, clip, wp.vec4), None, None, None

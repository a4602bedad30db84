"""Gaussians as they appear on pictures: where, how large, how far away."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from maquette.kernels.gaussian_projection_kernels import project, project_backward
from maquette.kernels.launch import array, launch_rows


@dataclass(frozen=True, eq=False)
class Cameras:
    """B pinhole cameras that look along +z (OpenCV); no gradients reach them."""

    w2c: Float[Tensor, "B 4 4"]
    """World to camera."""
    intrinsics: Float[Tensor, "B 3 3"]
    """Pixels."""
    height: int
    width: int
    near: float
    """What is nearer is not seen, world units along z."""


@dataclass(frozen=True, eq=False)
class Projected:
    """N Gaussians on B pictures; `s = frame d / (1 + slant d)` is a pixel in a Gaussian's own units."""

    centres: Float[Tensor, "B N 2"]
    """Pixels, x and y."""
    frames: Float[Tensor, "B N 4"]
    """Per pixel: 2x2 matrices, row by row."""
    slants: Float[Tensor, "B N 2"]
    """Per pixel; zero for 3D Gaussians."""
    depths: Float[Tensor, "B N"]
    """Along the viewing axis."""
    radii: Int[Tensor, "B N"]
    """Three standard deviations, whole pixels (int32); zero where nothing can be seen."""


def project_gaussians(
    means: Float[Tensor, "N 3"],
    rotations: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    cameras: Cameras,
    flat: bool,
) -> Projected:
    """Project Gaussians; all outputs but the radii are differentiable to the first three.

    A Gaussian that is not in front of the near plane, or has a value that is not finite, gets radius zero.
    The third scale of flat ones counts nowhere, whatever it is.
    """
    if flat:
        scales = F.pad(scales[:, :2], (0, 1))
    return Projected(*_Project.apply(means, rotations, scales, cameras, flat))


class _Project(Function):
    """(means, rotations, scales) -> (centres, frames, slants, depths, radii)."""

    @staticmethod
    def forward(
        ctx: Any, means: Tensor, rotations: Tensor, scales: Tensor, cameras: Cameras, flat: bool
    ) -> tuple[Tensor, ...]:
        views, n = cameras.w2c.shape[0], means.shape[0]
        centres, frames, slants, depths = (
            torch.zeros(views, n, k, device=means.device) for k in (2, 4, 2, 1)
        )
        radii = torch.zeros(views, n, device=means.device, dtype=torch.int32)
        inputs = _inputs(means, rotations, scales, cameras, flat)
        outputs = [array(centres.view(-1, 2), wp.vec2), array(frames.view(-1, 4), wp.vec4)]
        outputs += [array(slants.view(-1, 2), wp.vec2), array(depths.view(-1)), array(radii.view(-1))]
        launch_rows(project, views * n, [*inputs, *outputs], means.device)
        ctx.save_for_backward(means, rotations, scales, frames, slants, radii)
        ctx.cameras, ctx.flat = cameras, flat
        ctx.mark_non_differentiable(radii)
        return centres, frames, slants, depths[..., 0], radii

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        means, rotations, scales, frames, slants, radii = ctx.saved_tensors
        to_means, to_rotations, to_scales = (torch.zeros_like(t) for t in (means, rotations, scales))
        inputs = _inputs(means, rotations, scales, ctx.cameras, ctx.flat)
        inputs += [array(frames.view(-1, 4), wp.vec4), array(slants.view(-1, 2), wp.vec2)]
        inputs += [array(radii.view(-1)), array(grads[0].reshape(-1, 2), wp.vec2)]
        inputs += [array(grads[1].reshape(-1, 4), wp.vec4), array(grads[2].reshape(-1, 2), wp.vec2)]
        inputs += [array(grads[3].reshape(-1))]
        outputs = [array(to_means, wp.vec3), array(to_rotations, wp.vec4), array(to_scales, wp.vec3)]
        launch_rows(project_backward, means.shape[0], [*inputs, *outputs], means.device)
        return to_means, to_rotations, to_scales, None, None


def _inputs(means: Tensor, rotations: Tensor, scales: Tensor, cameras: Cameras, flat: bool) -> list[Any]:
    geometry = [array(means, wp.vec3), array(rotations, wp.vec4), array(scales, wp.vec3)]
    views = [array(cameras.w2c, wp.mat44), array(cameras.intrinsics, wp.mat33)]
    return [*geometry, *views, cameras.width, cameras.height, cameras.near, flat]

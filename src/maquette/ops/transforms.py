"""Coordinate frames, from an object to the pixel it covers.

object -> world (z up, +x front) -> view (OpenGL: x right, y up, looking along -z) -> clip -> NDC -> screen
(pixels, x to the right, y downwards, the centre of the first pixel at 0.5). The projection of this project
flips y already in clip space, so rows of NDC run downwards as rows of a picture do.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def homogeneous(points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 4"]:
    """Points with a fourth coordinate of one."""
    return torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)


def transform_points(
    points: Float[Tensor, "B N 3"], matrix: Float[Tensor, "B 4 4"]
) -> Float[Tensor, "B N 3"]:
    """Points moved by affine 4x4 matrices (column vectors, `matrix @ point`)."""
    return points @ matrix[:, :3, :3].mT + matrix[:, None, :3, 3]


def transform_directions(
    directions: Float[Tensor, "B N 3"], matrix: Float[Tensor, "B 4 4"]
) -> Float[Tensor, "B N 3"]:
    """Directions turned by affine 4x4 matrices; the translation has no effect."""
    return directions @ matrix[:, :3, :3].mT


def invert_rigid(matrix: Float[Tensor, "B 4 4"]) -> Float[Tensor, "B 4 4"]:
    """Inverse of a rotation and translation: c2w to w2c and back."""
    rotation = matrix[:, :3, :3].mT
    inverse = torch.zeros_like(matrix)
    inverse[:, :3, :3] = rotation
    inverse[:, :3, 3] = -(rotation @ matrix[:, :3, 3:])[..., 0]
    inverse[:, 3, 3] = 1.0
    return inverse


def world_to_clip(points: Float[Tensor, "B N 3"], mvp_mtx: Float[Tensor, "B 4 4"]) -> Float[Tensor, "B N 4"]:
    """World points in clip space; w is the distance along the viewing axis."""
    return homogeneous(points) @ mvp_mtx.mT


def clip_to_ndc(clip: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 3"]:
    """Perspective division; inside the frustum all coordinates are in [-1, 1]."""
    return clip[..., :3] / clip[..., 3:]


def ndc_to_screen(ndc: Float[Tensor, "*N 3"], height: int, width: int) -> Float[Tensor, "*N 2"]:
    """Pixel coordinates (x, y) of NDC points."""
    size = torch.tensor([width, height], dtype=ndc.dtype, device=ndc.device)
    return (ndc[..., :2] + 1.0) * 0.5 * size


def screen_to_ndc(pixels: Float[Tensor, "*N 2"], height: int, width: int) -> Float[Tensor, "*N 2"]:
    """The x and y of NDC for pixel coordinates (x, y)."""
    size = torch.tensor([width, height], dtype=pixels.dtype, device=pixels.device)
    return pixels / size * 2.0 - 1.0


def world_to_screen(
    points: Float[Tensor, "B N 3"], mvp_mtx: Float[Tensor, "B 4 4"], height: int, width: int
) -> Float[Tensor, "B N 2"]:
    """Pixel coordinates (x, y) that world points cover."""
    return ndc_to_screen(clip_to_ndc(world_to_clip(points, mvp_mtx)), height, width)


def gl_to_cv(c2w: Float[Tensor, "B 4 4"]) -> Float[Tensor, "B 4 4"]:
    """Camera-to-world of an OpenGL camera as that of an OpenCV camera (x right, y down, z forward)."""
    return c2w * c2w.new_tensor([1.0, -1.0, -1.0, 1.0])


def intrinsics(proj_mtx: Float[Tensor, "B 4 4"], height: int, width: int) -> Float[Tensor, "B 3 3"]:
    """Pinhole matrices in pixels, for points of an OpenCV camera, that a projection stands for.

    `K @ (x, y, z) / z` is the screen position (x, y); the principal point may lie off the middle.
    """
    matrix = proj_mtx.new_zeros(len(proj_mtx), 3, 3)
    matrix[:, 0, 0] = 0.5 * width * proj_mtx[:, 0, 0]
    matrix[:, 1, 1] = -0.5 * height * proj_mtx[:, 1, 1]
    matrix[:, 0, 2] = 0.5 * width * (1.0 - proj_mtx[:, 0, 2])
    matrix[:, 1, 2] = 0.5 * height * (1.0 - proj_mtx[:, 1, 2])
    matrix[:, 2, 2] = 1.0
    return matrix

"""Coordinate frames, from an object to the pixel it covers.

object -> parent -> ... -> world (`ops.frames`; z up, +x front) -> view (OpenGL: x right, y up, looking along
-z) -> clip -> NDC -> viewport -> screen (pixels, x to the right, y downwards, the centre of the first pixel
at 0.5). Cameras of other programs are converted in `ops.camera_conventions`. The projection of this project
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


def ndc_to_viewport(
    ndc: Float[Tensor, "*N 3"], corner: tuple[float, float], height: int, width: int
) -> Float[Tensor, "*N 3"]:
    """Pixel coordinates (x, y) in a window, and depth in [0, 1], of NDC points.

    They are drawn into `height` x `width` pixels of it, whose upper left corner stands at `corner` (x, y).
    """
    screen = ndc_to_screen(ndc, height, width) + ndc.new_tensor(corner)
    return torch.cat([screen, 0.5 * ndc[..., 2:] + 0.5], dim=-1)


def viewport_to_ndc(
    pixels: Float[Tensor, "*N 3"], corner: tuple[float, float], height: int, width: int
) -> Float[Tensor, "*N 3"]:
    """NDC points of pixel coordinates (x, y) in a window, and depth in [0, 1]."""
    ndc = screen_to_ndc(pixels[..., :2] - pixels.new_tensor(corner), height, width)
    return torch.cat([ndc, 2.0 * pixels[..., 2:] - 1.0], dim=-1)


def screen_to_world(
    pixels: Float[Tensor, "B N 2"],
    distance: Float[Tensor, "B N"],
    proj_mtx: Float[Tensor, "B 4 4"],
    c2w: Float[Tensor, "B 4 4"],
    height: int,
    width: int,
) -> Float[Tensor, "B N 3"]:
    """World points seen at pixel coordinates (x, y), at a distance along the viewing axis: the inverse of
    `world_to_screen`.
    """
    matrix = torch.linalg.inv(intrinsics(proj_mtx, height, width))
    rays = homogeneous_pixels(pixels) @ matrix.mT
    return transform_points(rays * distance[..., None], gl_to_cv(c2w))


def homogeneous_pixels(pixels: Float[Tensor, "*N 2"]) -> Float[Tensor, "*N 3"]:
    """Pixel coordinates with a third coordinate of one."""
    return torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)


def gl_to_cv(c2w: Float[Tensor, "B 4 4"]) -> Float[Tensor, "B 4 4"]:
    """Camera-to-world of an OpenGL camera as that of an OpenCV one (x right, y down, z forward), and back."""
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


def projection_of(
    matrix: Float[Tensor, "B 3 3"], height: int, width: int, near: float, far: float
) -> Float[Tensor, "B 4 4"]:
    """The projection, view (OpenGL) to clip, that stands for pinhole matrices in pixels: the inverse of
    `intrinsics`.
    """
    proj = matrix.new_zeros(len(matrix), 4, 4)
    proj[:, 0, 0] = 2.0 / width * matrix[:, 0, 0]
    proj[:, 1, 1] = -2.0 / height * matrix[:, 1, 1]
    proj[:, 0, 2] = 1.0 - 2.0 / width * matrix[:, 0, 2]
    proj[:, 1, 2] = 1.0 - 2.0 / height * matrix[:, 1, 2]
    proj[:, 2, 2] = -(far + near) / (far - near)
    proj[:, 2, 3] = -2.0 * far * near / (far - near)
    proj[:, 3, 2] = -1.0
    return proj

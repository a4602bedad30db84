"""There and back; and, in each convention, the pixel that a point falls on."""

import pytest
import torch

from maquette.ops.camera_conventions import (
    from_blender,
    from_colmap,
    from_opencv,
    from_pytorch3d,
    intrinsics_from_pytorch3d,
    intrinsics_to_pytorch3d,
    quaternions,
    to_blender,
    to_colmap,
    to_opencv,
    to_pytorch3d,
)
from maquette.ops.cameras import look_at, projection
from maquette.ops.frames import rotation_about
from maquette.ops.gaussians import rotation_matrices
from maquette.ops.transforms import intrinsics, invert_rigid, projection_of, transform_points, world_to_screen

HEIGHT, WIDTH = 48, 64
UP = torch.tensor([[0.0, 0.0, 1.0]])


def cameras(count):
    draws = torch.randn(count, 3, generator=torch.Generator().manual_seed(count))
    return look_at(
        2.0 * torch.nn.functional.normalize(draws, dim=-1), 0.1 * draws.flip(0), UP.expand(count, 3)
    )


def pinholes(count):
    proj = projection(torch.linspace(0.6, 1.2, count), WIDTH / HEIGHT)
    proj[:, 0, 2], proj[:, 1, 2] = 0.2, -0.1
    return proj


def points(count):
    return torch.rand(count, 10, 3, generator=torch.Generator().manual_seed(1)) - 0.5


THERE_AND_BACK = {
    "OpenCV": lambda c2w: from_opencv(to_opencv(c2w)),
    "COLMAP": lambda c2w: from_colmap(*to_colmap(c2w)),
    "Blender": lambda c2w: from_blender(to_blender(c2w)),
    "PyTorch3D": lambda c2w: from_pytorch3d(*to_pytorch3d(c2w)),
}


@pytest.mark.parametrize("name", THERE_AND_BACK)
@pytest.mark.parametrize("count", [1, 3, 20])
def test_there_and_back(name, count):
    c2w = cameras(count)
    torch.testing.assert_close(THERE_AND_BACK[name](c2w), c2w, atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [1, 3])
def test_opencv_and_colmap_see_points_on_the_same_pixels(count):
    c2w, proj = cameras(count), pinholes(count)
    expected = world_to_screen(points(count), proj @ invert_rigid(c2w), HEIGHT, WIDTH)
    quaternion, translation = to_colmap(c2w)
    seen = points(count) @ rotation_matrices(quaternion).mT + translation[:, None]
    torch.testing.assert_close(seen, transform_points(points(count), to_opencv(c2w)), atol=1e-5, rtol=0)
    assert (seen[..., 2] > 0).all(), "in front is +z"
    pixels = seen @ intrinsics(proj, HEIGHT, WIDTH).mT
    torch.testing.assert_close(pixels[..., :2] / pixels[..., 2:], expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (WIDTH, HEIGHT)])
def test_pytorch3d_sees_points_on_the_same_pixels(size):
    height, width = size
    c2w, proj = cameras(3), pinholes(3)
    expected = world_to_screen(points(3), proj @ invert_rigid(c2w), height, width)
    rotation, translation = to_pytorch3d(c2w)
    seen = points(3) @ rotation + translation[:, None]
    focal, principal = intrinsics_to_pytorch3d(intrinsics(proj, height, width), height, width)
    ndc = focal[:, None] * seen[..., :2] / seen[..., 2:] + principal[:, None]
    # as PyTorch3D documents it: the shorter side is [-1, 1], x to the left, y upwards
    pixels = torch.tensor([width, height]) / 2 - min(height, width) / 2 * ndc
    torch.testing.assert_close(pixels, expected, atol=1e-3, rtol=0)


def test_blender_shows_the_front_of_what_it_imported():
    """glTF (y up) holds world (x, y, z) as (y, z, x), and Blender turns (X, Y, Z) into (X, -Z, Y)."""
    c2w, proj = cameras(3), pinholes(3)
    expected = world_to_screen(points(3), proj @ invert_rigid(c2w), HEIGHT, WIDTH)
    gltf = points(3)[..., [1, 2, 0]]
    blender = torch.stack([gltf[..., 0], -gltf[..., 2], gltf[..., 1]], dim=-1)
    matrix_world = to_blender(c2w)
    torch.testing.assert_close(
        world_to_screen(blender, proj @ invert_rigid(matrix_world), HEIGHT, WIDTH),
        expected,
        atol=1e-3,
        rtol=0,
    )
    scaled = matrix_world @ torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))
    torch.testing.assert_close(from_blender(scaled), c2w, atol=1e-5, rtol=0)


def test_pinholes_there_and_back():
    proj = pinholes(3)
    matrix = intrinsics(proj, HEIGHT, WIDTH)
    torch.testing.assert_close(projection_of(matrix, HEIGHT, WIDTH, 0.01, 100.0), proj)
    again = intrinsics_from_pytorch3d(*intrinsics_to_pytorch3d(matrix, HEIGHT, WIDTH), HEIGHT, WIDTH)
    torch.testing.assert_close(again, matrix)


def test_quaternions_of_every_kind_of_rotation():
    axes = torch.cat(
        [torch.eye(3), -torch.eye(3), torch.randn(50, 3, generator=torch.Generator().manual_seed(2))]
    )
    for angle in (0.0, 1e-4, 1.0, 3.14159, -3.0):
        matrices = rotation_about(axes.double(), torch.full((len(axes),), angle, dtype=torch.float64))
        unit = quaternions(matrices)
        torch.testing.assert_close(rotation_matrices(unit), matrices, atol=1e-9, rtol=0)
        assert (unit[:, 0] >= 0).all() and torch.allclose(unit.norm(dim=-1), torch.ones_like(unit[:, 0]))

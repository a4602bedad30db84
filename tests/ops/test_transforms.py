import torch

from maquette.ops.cameras import look_at, projection
from maquette.ops.transforms import (
    gl_to_cv,
    intrinsics,
    invert_rigid,
    ndc_to_screen,
    ndc_to_viewport,
    screen_to_ndc,
    screen_to_world,
    transform_directions,
    transform_points,
    viewport_to_ndc,
    world_to_screen,
)


def pose():
    return look_at(torch.tensor([[1.0, 2.0, 3.0]]), torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]))


def test_world_to_view_and_back():
    points = torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(0))
    there = transform_points(points, invert_rigid(pose()))
    torch.testing.assert_close(transform_points(there, pose()), points, atol=1e-5, rtol=1e-5)


def test_the_inverse_is_the_inverse():
    torch.testing.assert_close(invert_rigid(pose()), torch.linalg.inv(pose()), atol=1e-6, rtol=1e-6)


def test_directions_ignore_translation():
    forward = transform_directions(torch.tensor([[[0.0, 0.0, -1.0]]]), pose())
    expected = -torch.tensor([1.0, 2.0, 3.0]) / 14**0.5
    torch.testing.assert_close(forward[0, 0], expected)


def test_screen_and_ndc():
    ndc = torch.tensor([[-1.0, -1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.5, 0.0]])
    pixels = ndc_to_screen(ndc, height=40, width=60)
    torch.testing.assert_close(pixels, torch.tensor([[0.0, 0.0], [60.0, 40.0], [30.0, 30.0]]))
    torch.testing.assert_close(screen_to_ndc(pixels, height=40, width=60), ndc[:, :2])


def test_intrinsics_give_the_pixels_that_the_projection_gives_also_off_the_middle():
    proj = projection(torch.tensor([0.7, 1.1]), 64 / 48)
    proj[:, 0, 2], proj[:, 1, 2] = 0.2, -0.1
    c2w = look_at(torch.tensor([[2.0, 1.0, 0.5]] * 2), torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 1.0]] * 2))
    points = torch.rand(2, 10, 3) - 0.5
    expected = world_to_screen(points, proj @ invert_rigid(c2w), 48, 64)
    seen = transform_points(points, torch.linalg.inv(gl_to_cv(c2w)))
    pixels = (intrinsics(proj, 48, 64) @ seen.mT).mT
    torch.testing.assert_close(pixels[..., :2] / pixels[..., 2:], expected)


def test_a_viewport_is_a_rectangle_of_the_window():
    ndc = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0], [0.0, 0.5, 0.0]])
    pixels = ndc_to_viewport(ndc, (100.0, 10.0), height=40, width=60)
    torch.testing.assert_close(
        pixels, torch.tensor([[100.0, 10.0, 0.0], [160.0, 50.0, 1.0], [130.0, 40.0, 0.5]])
    )
    torch.testing.assert_close(viewport_to_ndc(pixels, (100.0, 10.0), 40, 60), ndc)


def test_pixels_with_a_distance_are_points_again():
    proj = projection(torch.tensor([0.7]), 64 / 48)
    points = torch.rand(1, 10, 3) - 0.5
    pixels = world_to_screen(points, proj @ invert_rigid(pose()), 48, 64)
    distance = -transform_points(points, invert_rigid(pose()))[..., 2]
    torch.testing.assert_close(
        screen_to_world(pixels, distance, proj, pose(), 48, 64), points, atol=1e-4, rtol=0
    )

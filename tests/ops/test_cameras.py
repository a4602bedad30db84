import math

import pytest
import torch

from maquette.ops.cameras import look_at, mvp, orbit_to_position, projection, ray_directions, rays
from maquette.ops.transforms import world_to_clip, world_to_screen


def three_cameras():
    elevation, azimuth = torch.tensor([10.0, -20.0, 75.0]), torch.tensor([0.0, 100.0, -170.0])
    position = orbit_to_position(elevation, azimuth, torch.tensor([2.0, 3.0, 1.5]))
    center = torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.2, -0.1], [0.0, 0.0, 0.0]])
    return look_at(position, center, torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3)), position, center


def test_orbit_has_front_at_plus_x_and_top_at_plus_z():
    elevation, azimuth = torch.tensor([0.0, 0.0, 90.0, 0.0]), torch.tensor([0.0, 90.0, 0.0, 180.0])
    position = orbit_to_position(elevation, azimuth, torch.full((4,), 2.0))
    expected = torch.tensor([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0], [-2.0, 0, 0]])
    torch.testing.assert_close(position, expected, atol=1e-6, rtol=0)


def test_look_at_is_a_rotation_that_looks_at_the_center():
    c2w, position, center = three_cameras()
    rotation = c2w[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(3, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(3))
    forward = torch.nn.functional.normalize(center - position, dim=-1)
    torch.testing.assert_close(-c2w[:, :3, 2], forward)
    assert (c2w[:, 2, 1] > 0).all(), "the picture's top is up"


def test_a_batch_of_three_is_three_of_one():
    c2w, position, center = three_cameras()
    up = torch.tensor([[0.0, 0.0, 1.0]])
    alone = torch.cat([look_at(position[i : i + 1], center[i : i + 1], up) for i in range(3)])
    torch.testing.assert_close(c2w, alone, atol=0, rtol=0)


@pytest.mark.parametrize(("z", "top"), [(2.0, -1.0), (-2.0, 1.0)])
def test_looking_along_the_up_vector_has_a_defined_roll(z, top):
    c2w = look_at(torch.tensor([[0.0, 0.0, z]]), torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]))
    torch.testing.assert_close(c2w[0, :3, 1], torch.tensor([top, 0.0, 0.0]))


def test_rays_land_on_the_pixels_that_they_came_from():
    height, width = 5, 7
    c2w, _, _ = three_cameras()
    fovy = torch.deg2rad(torch.tensor([40.0, 55.0, 70.0]))
    rays_o, rays_d = rays(ray_directions(height, width, fovy), c2w)
    points = (rays_o + 1.7 * rays_d).reshape(3, -1, 3)
    pixels = world_to_screen(points, mvp(projection(fovy, width / height), c2w), height, width)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centers = torch.stack([columns, rows], dim=-1).reshape(1, -1, 2) + 0.5
    torch.testing.assert_close(pixels, centers.expand(3, -1, -1), atol=2e-4, rtol=0)


def test_unit_rays_and_depth_rays_point_the_same_way():
    c2w, _, _ = three_cameras()
    directions = ray_directions(4, 4, torch.full((3,), 0.8))
    _, unit = rays(directions, c2w)
    _, depth_one = rays(directions, c2w, normalize=False)
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(3, 4, 4))
    torch.testing.assert_close(torch.nn.functional.normalize(depth_one, dim=-1), unit)
    axis = -c2w[:, None, None, :3, 2]
    torch.testing.assert_close((depth_one * axis).sum(-1), torch.ones(3, 4, 4))


def test_vertical_field_of_view():
    fovy = torch.tensor([math.radians(60.0)])
    edge = ray_directions(1000, 10, fovy)[0, 0, 5]
    assert math.degrees(math.atan(edge[1])) == pytest.approx(30.0, abs=0.05)


def test_near_and_far_planes_map_to_minus_one_and_one():
    matrix = projection(torch.tensor([1.0]), 1.5, near=0.5, far=20.0)
    clip = world_to_clip(torch.tensor([[[0.0, 0.0, -0.5], [0.0, 0.0, -20.0]]]), matrix)
    torch.testing.assert_close(clip[..., 2] / clip[..., 3], torch.tensor([[-1.0, 1.0]]))
    torch.testing.assert_close(clip[..., 3], torch.tensor([[0.5, 20.0]]))

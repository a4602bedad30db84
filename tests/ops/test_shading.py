import math

import torch

from maquette.ops.shading import lambert, light_directions, normal_to_color, spherical_light


def test_lambert_by_hand():
    normal = torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3)
    to_light = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.6, 0.8]])
    light = lambert(normal, to_light, diffuse=torch.full((3,), 0.9), ambient=torch.full((3,), 0.1))
    torch.testing.assert_close(light[:, 0], torch.tensor([1.0, 0.1, 0.82]))


def test_light_from_behind_leaves_the_ambient():
    light = lambert(
        torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.0, 0.0, -1.0]]), torch.ones(3), torch.zeros(3)
    )
    assert light.tolist() == [[0.0, 0.0, 0.0]]


def test_light_direction_is_a_unit_vector_to_the_light():
    got = light_directions(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 5.0]]))
    assert got.tolist() == [[0.0, 0.0, 1.0]]


def test_normal_colors():
    assert normal_to_color(torch.tensor([[1.0, -1.0, 0.0]])).tolist() == [[1.0, 0.0, 0.5]]


def test_spherical_light_has_its_distance_and_elevation():
    towards = torch.nn.functional.normalize(
        torch.tensor([[1.0, 2.0, 2.0], [0.0, 0.0, 1.0], [0.0, 0.0, -3.0]]), dim=-1
    )
    elevation = torch.tensor([math.pi / 2, math.pi / 6, math.pi / 4])
    light = spherical_light(towards, elevation, torch.tensor([0.3, -2.0, 1.0]), torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(light.norm(dim=-1), torch.tensor([1.0, 2.0, 3.0]))
    cosine = (light * towards).sum(-1) / light.norm(dim=-1)
    torch.testing.assert_close(cosine, torch.sin(elevation))

"""Filtered light against integrals that can be written down."""

import math

import pytest
import torch

from maquette.ops.environment import (
    LEVELS,
    direction_to_uv,
    ggx_lobe,
    irradiance,
    prefilter,
    sample_lobes,
    sample_sphere,
    solid_angles,
    texel_directions,
    to_nodes,
    uv_to_direction,
    zonal_filter,
)
from maquette.ops.studio import MEAN, studio


def directions(n=200):
    drawn = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(drawn, dim=-1)


def scale_of_first_band(roughness: float) -> float:
    """How much a lobe shrinks light that is linear in the direction: the mean cosine, by fine quadrature."""
    theta = (torch.arange(200000, dtype=torch.float64) + 0.5) * (math.pi / 200000)
    cosine = torch.cos(theta)
    half = 0.5 * (1 + cosine)
    alpha = roughness**2
    density = alpha**2 / (math.pi * (half * (alpha**2 - 1) + 1) ** 2)
    weight = density * cosine.clamp(min=0) * torch.sin(theta)
    return float((weight * cosine).sum() / weight.sum())


def test_the_centre_is_the_front_and_the_picture_runs_clockwise():
    axes = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, -1.0, 0], [0, 0, 1.0], [0, 0, -1.0]])
    expected = torch.tensor([[0.5, 0.5], [0.25, 0.5], [0.75, 0.5], [0.5, 1.0], [0.5, 0.0]])
    torch.testing.assert_close(direction_to_uv(axes), expected, atol=1e-6, rtol=0)
    back = direction_to_uv(torch.tensor([-1.0, -1e-4, 0.0]))
    assert back[0] > 0.999


def test_directions_and_places_are_inverse():
    torch.testing.assert_close(uv_to_direction(direction_to_uv(3.0 * directions())), directions())
    torch.testing.assert_close(
        texel_directions(4, 8)[1, 5], uv_to_direction(torch.tensor([5.5 / 8, 1 - 1.5 / 4]))
    )


def test_solid_angles_cover_the_sphere():
    assert solid_angles(7, 5).sum() * 5 == pytest.approx(4 * math.pi, rel=1e-6)


def test_even_light_stays_even():
    even = torch.full((16, 32, 3), 0.7)
    torch.testing.assert_close(irradiance(even), torch.full((33, 65, 3), 0.7), atol=1e-5, rtol=0)
    torch.testing.assert_close(prefilter(even), torch.full((LEVELS, 129, 257, 3), 0.7), atol=1e-5, rtol=0)


@pytest.mark.parametrize("rows, columns", [(32, 64), (24, 40)])
def test_a_lobe_scales_light_that_is_linear_in_the_direction(rows, columns):
    light = 1.0 + texel_directions(rows, columns)
    for roughness in (0.5, 1.0):
        nodes = zonal_filter(light, ggx_lobe(roughness))
        expected = 1.0 + scale_of_first_band(roughness) * directions()
        torch.testing.assert_close(sample_sphere(nodes, directions()), expected, atol=0.01, rtol=0)
    matte = zonal_filter(light, lambda cosine: cosine.clamp(min=0.0))
    torch.testing.assert_close(
        sample_sphere(matte, directions()), 1.0 + 2.0 / 3.0 * directions(), atol=0.01, rtol=0
    )


def test_levels_between_the_filtered_ones_are_close_to_the_integral():
    light = 1.0 + texel_directions(128, 256)
    levels = prefilter(light)
    for roughness in (0.0, 0.08, 0.3, 0.55, 0.9):
        seen = sample_lobes(levels, directions(), torch.full((200, 1), roughness))
        scale = 1.0 if roughness == 0 else scale_of_first_band(roughness)
        torch.testing.assert_close(seen, 1.0 + scale * directions(), atol=0.02, rtol=0)


def test_one_lamp_is_found_where_it_is():
    light = torch.zeros(64, 128, 3)
    lamp = torch.tensor([0.0, -0.8, 0.6])
    u, v = direction_to_uv(lamp)
    light[int((1 - v) * 64), int(u * 128)] = 100.0
    levels = prefilter(light)
    towards = texel_directions(90, 180).reshape(-1, 3)
    for roughness in (0.0, 0.3, 0.8):
        seen = sample_lobes(levels, towards, torch.full((len(towards), 1), roughness))[:, 0]
        assert (towards[seen.argmax()] * lamp).sum() > 0.98
    assert sample_sphere(levels[0], -lamp[None]).max() == 0


def test_neither_seam_nor_pole_shows():
    nodes = to_nodes(torch.rand(8, 16, 3, generator=torch.Generator().manual_seed(1)))
    behind = torch.tensor([[-1.0, 1e-5, 0.2], [-1.0, -1e-5, 0.2]])
    first, second = sample_sphere(nodes, behind)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)
    above = torch.tensor([[1e-4, 0, 1.0], [-1e-4, 0, 1.0], [0, 0, 1.0]])
    values = sample_sphere(nodes, above)
    torch.testing.assert_close(values, values[2:].expand(3, 3), atol=1e-3, rtol=0)


def test_gradients_agree_with_differences_and_are_finite_at_the_poles():
    nodes = to_nodes(texel_directions(16, 32) ** 2).double()
    points = directions(5).double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda p: sample_sphere(nodes, p), points)
    levels = torch.stack([nodes, 2 * nodes])
    rough = torch.full((5, 1), 0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p, r: sample_lobes(levels, p, r), (points, rough))
    poles = torch.tensor([[0.0, 0, 1], [0, 0, -1], [0, 0, 0]], requires_grad=True)
    sample_sphere(nodes.float(), poles).sum().backward()
    assert torch.isfinite(poles.grad).all() and poles.grad.abs().max() < 100


def test_the_studio_is_light_with_a_known_mean():
    light = studio(32)
    assert light.shape == (32, 64, 3) and light.min() > 0
    mean = (light * solid_angles(32, 64)).sum() / (4 * math.pi * 3)
    assert mean == pytest.approx(MEAN, rel=1e-5)
    brightest = texel_directions(32, 64).reshape(-1, 3)[light.sum(-1).argmax()]
    assert brightest[0] > 0 and brightest[2] > 0.3

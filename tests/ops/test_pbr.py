"""The table against the hemisphere summed up, and energy."""

import math

import pytest
import torch

from maquette.ops.pbr import (
    base_reflectance,
    brdf_table,
    hammersley,
    integrate_brdf,
    lookup_brdf,
    reflect,
    split_sum,
)


def hemisphere_sum(n_dot_v: float, roughness: float, n: int = 1500) -> tuple[float, float]:
    """A and B by the midpoint rule over all light directions, float64; nothing is sampled."""
    mu = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    phi = (torch.arange(n, dtype=torch.float64) + 0.5) * (math.pi / n)
    mu, phi = torch.meshgrid(mu, phi, indexing="ij")
    view = torch.tensor([math.sqrt(1 - n_dot_v**2), 0.0, n_dot_v], dtype=torch.float64)
    sine = (1 - mu**2).sqrt()
    light = torch.stack([sine * torch.cos(phi), sine * torch.sin(phi), mu], dim=-1)
    half = torch.nn.functional.normalize(light + view, dim=-1)
    n_dot_h, v_dot_h = half[..., 2], (half * view).sum(-1)
    alpha, k = roughness**2, roughness**2 / 2
    d = alpha**2 / (math.pi * (n_dot_h**2 * (alpha**2 - 1) + 1) ** 2)
    g = n_dot_v / (n_dot_v * (1 - k) + k) * mu / (mu * (1 - k) + k)
    value = d * g / (4 * n_dot_v) * (2.0 / n * math.pi / n)
    fresnel = (1 - v_dot_h) ** 5
    return float(((1 - fresnel) * value).sum()), float((fresnel * value).sum())


@pytest.mark.parametrize("n_dot_v", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("roughness", [0.25, 0.6, 1.0])
def test_the_table_agrees_with_the_hemisphere(n_dot_v, roughness):
    expected = torch.tensor(hemisphere_sum(n_dot_v, roughness))
    found = lookup_brdf(brdf_table(), torch.tensor([[n_dot_v]]), torch.tensor([[roughness]]))[0]
    torch.testing.assert_close(found, expected, atol=6e-3, rtol=0)


def test_between_nodes_the_table_agrees_with_the_integral():
    drawn = torch.rand(300, 2, generator=torch.Generator().manual_seed(0))
    n_dot_v, roughness = 0.03 + 0.97 * drawn[:, :1], 0.08 + 0.92 * drawn[:, 1:]
    exact = integrate_brdf(n_dot_v[:, 0].double(), roughness[:, 0].double(), samples=4096).float()
    torch.testing.assert_close(lookup_brdf(brdf_table(), n_dot_v, roughness), exact, atol=6e-3, rtol=0)


def test_a_smooth_surface_is_schlick_and_keeps_all_energy():
    n_dot_v = torch.tensor([[1.0], [0.7], [0.3]])
    scale, offset = lookup_brdf(brdf_table(), n_dot_v, torch.full((3, 1), 0.02)).unbind(-1)
    torch.testing.assert_close(offset, (1 - n_dot_v[:, 0]) ** 5, atol=5e-3, rtol=0)
    torch.testing.assert_close(scale + offset, torch.ones(3), atol=5e-3, rtol=0)


def test_the_points_cover_the_square():
    points = hammersley(64)
    assert points.min() >= 0 and points.max() < 1
    cells = (points * 8).long()
    assert len(torch.unique(cells[:, 0] * 8 + cells[:, 1])) == 64


@pytest.mark.parametrize("roughness", [0.08, 0.5, 0.9])
def test_white_furnace(roughness):
    """Under even light a white dielectric vanishes at every angle; a white metal too, as far as light that is
    scattered once goes."""
    n_dot_v = torch.linspace(0.05, 1.0, 20)[:, None]
    brdf = lookup_brdf(brdf_table(), n_dot_v, torch.full((20, 1), roughness))
    one = torch.ones(20, 3)
    plastic = split_sum(one, torch.zeros(20, 1), one, one, brdf)
    torch.testing.assert_close(plastic, one, atol=1e-5, rtol=0)
    metal = split_sum(one, torch.ones(20, 1), one, one, brdf)
    assert metal.max() < 1.005
    if roughness < 0.3:
        assert metal[n_dot_v[:, 0] > 0.3].min() > 0.97


def test_mirrors_reflect():
    viewdirs = torch.nn.functional.normalize(torch.tensor([[-1.0, 0, -1], [0, -1, 0.0]]), dim=-1)
    normal = torch.tensor([[0.0, 0, 1], [0, 1, 0.0]])
    expected = torch.nn.functional.normalize(torch.tensor([[-1.0, 0, 1], [0, 1, 0.0]]), dim=-1)
    torch.testing.assert_close(reflect(viewdirs, normal), expected)


def test_reflectance_of_dielectrics_and_metals():
    gold = torch.tensor([[1.0, 0.8, 0.3]])
    torch.testing.assert_close(base_reflectance(gold, torch.zeros(1, 1)), torch.full((1, 3), 0.04))
    torch.testing.assert_close(base_reflectance(gold, torch.ones(1, 1)), gold)


def test_lookup_gradients_agree_with_differences():
    table = brdf_table().double()
    n_dot_v = torch.tensor([[0.21], [0.83]], dtype=torch.float64, requires_grad=True)
    roughness = torch.tensor([[0.37], [0.11]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: lookup_brdf(table, a, b), (n_dot_v, roughness))

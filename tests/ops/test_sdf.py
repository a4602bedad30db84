"""Opacities of signed distances against the formulas of the papers, and against each other."""

import math

import pytest
import torch

from maquette.ops.sdf import annealed_cosine, laplace_cdf, neus_thickness, volsdf_density
from maquette.ops.volume import alpha_composite


def samples(batch=1, n=40):
    generator = torch.Generator().manual_seed(0)
    sdf = torch.randn(batch, n, generator=generator, dtype=torch.float64) * 0.2
    cosine = torch.rand(batch, n, generator=generator, dtype=torch.float64) * 2 - 1
    return sdf, cosine, torch.rand(batch, n, generator=generator, dtype=torch.float64) * 0.1 + 0.01


def neus_alpha(sdf, true_cosine, delta, inv_std, anneal=1.0):
    """The opacity that a renderer makes of the thickness."""
    return -torch.expm1(-neus_thickness(sdf, annealed_cosine(true_cosine, anneal), delta, inv_std))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("anneal", [0.0, 0.3, 1.0])
def test_alpha_is_that_of_the_paper(batch, anneal):
    sdf, true_cosine, delta = samples(batch)
    cosine = -(torch.relu(0.5 - 0.5 * true_cosine) * (1 - anneal) + torch.relu(-true_cosine) * anneal)
    before = torch.sigmoid((sdf - 0.5 * cosine * delta) * 20.0)
    behind = torch.sigmoid((sdf + 0.5 * cosine * delta) * 20.0)
    expected = ((before - behind) / before).clamp(0, 1)
    torch.testing.assert_close(neus_alpha(sdf, true_cosine, delta, 20.0, anneal), expected)
    single = neus_alpha(sdf.float(), true_cosine.float(), delta.float(), 20.0, anneal)
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 3])
def test_gradients_are_true(batch):
    sdf, cosine, delta = samples(batch, 10)
    sharpness = torch.tensor(8.0, dtype=torch.float64, requires_grad=True)
    inputs = (sdf.requires_grad_(), cosine.requires_grad_(), sharpness)
    assert torch.autograd.gradcheck(lambda s, c, k: neus_alpha(s, c, delta, k, 0.5), inputs)
    assert torch.autograd.gradcheck(volsdf_density, (sdf, sharpness))


def test_nothing_overflows_far_from_the_surface():
    sdf = torch.tensor([-50.0, -1.0, 0.0, 1.0, 50.0], requires_grad=True)
    facing = torch.full_like(sdf, -1.0)
    alpha = neus_alpha(sdf, facing, torch.full_like(sdf, 0.1), 500.0)
    density = volsdf_density(sdf, 500.0)
    (alpha.sum() + density.sum()).backward()
    assert bool(torch.isfinite(sdf.grad).all())
    assert alpha.tolist() == pytest.approx([1.0, 1.0, 1.0, 0.0, 0.0], abs=1e-5)
    assert density.tolist() == pytest.approx([500.0, 500.0, 250.0, 0.0, 0.0], abs=1e-5)


def test_surfaces_that_face_away_are_seen_only_before_the_annealing_ends():
    away = torch.tensor([0.6])
    assert annealed_cosine(away, 1.0).item() == 0.0
    assert annealed_cosine(away, 0.0).item() == pytest.approx(-0.2)
    assert annealed_cosine(-away, 1.0).item() == pytest.approx(-0.6)


@pytest.mark.parametrize("rule", ["neus", "volsdf"])
def test_a_sharp_plane_is_seen_where_it_is(rule):
    """The mean depth of a plane at 1 and its opacity, as the shell around it gets thin."""
    edges = torch.linspace(0.0, 2.0, 4001, dtype=torch.float64)
    middle, delta = 0.5 * (edges[1:] + edges[:-1]), edges[1:] - edges[:-1]
    sdf = 1.0 - middle
    if rule == "neus":
        density = neus_thickness(sdf, -1.0, delta, 100.0) / delta
    else:
        density = volsdf_density(sdf, 100.0)
    weights = alpha_composite(density[None], delta[None])[0]
    assert weights.sum().item() == pytest.approx(1.0, abs=1e-6)
    assert (weights @ middle).item() == pytest.approx(1.0, abs=0.02)


def test_laplace_distribution_function():
    x = torch.tensor([-math.inf, -1.0, 0.0, 1.0, math.inf])
    half = 0.5 * math.exp(-2.0)
    assert laplace_cdf(x, 2.0).tolist() == pytest.approx([0.0, half, 0.5, 1 - half, 1.0])

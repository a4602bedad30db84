"""Weights of signed distances through the compositing kernel, against the papers' formulas in float64."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maquette.kernels.composite import composite
from maquette.ops.rays import pack_counts
from maquette.ops.sdf import annealed_cosine, neus_thickness, volsdf_density

TWINS = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("volume_twins.py"))))


def rays(count, samples=40):
    """Distances to a wavy plane, cosines and edges."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.linspace(0.5, 1.5, samples + 1).expand(count, -1)
    middle = 0.5 * (edges[:, 1:] + edges[:, :-1])
    sdf = 1.0 - middle + 0.1 * torch.randn(count, samples, generator=generator)
    return sdf, torch.rand(count, samples, generator=generator) * 2 - 1, edges.contiguous()


def through_kernel(sigma, edges):
    """Weights (R, S) of densities (R, S)."""
    starts, ends = edges[:, :-1].reshape(-1), edges[:, 1:].reshape(-1)
    packed = pack_counts(torch.full((len(sigma),), sigma.shape[1]))
    values = sigma.new_zeros(sigma.numel(), 1)
    return composite(sigma.reshape(-1), values, starts, ends, packed, 0.0)[3].reshape(sigma.shape)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("anneal", [0.0, 0.5, 1.0])
def test_weights_by_the_rule_of_neus(count, anneal):
    sdf, cosine, edges = rays(count)
    delta = edges[:, 1:] - edges[:, :-1]

    def ours(sdf, cosine, sharpness):
        thickness = neus_thickness(sdf, annealed_cosine(cosine, anneal), delta, sharpness)
        return through_kernel(thickness / delta, edges)

    def theirs(sdf, cosine, sharpness):
        return TWINS.neus_weights(sdf, cosine, delta.double(), sharpness, anneal)

    agree(ours, theirs, sdf, cosine, torch.tensor(30.0))


@pytest.mark.parametrize("count", [1, 3])
def test_weights_by_the_rule_of_volsdf(count):
    sdf, _, edges = rays(count)
    delta = edges[:, 1:] - edges[:, :-1]

    def ours(sdf, sharpness):
        return through_kernel(volsdf_density(sdf, sharpness), edges)

    agree(ours, lambda s, k: TWINS.volsdf_weights(s, delta.double(), k), sdf, torch.tensor(30.0))


def agree(ours, theirs, *inputs):
    """Values and gradients to every input."""
    single = [one.clone().requires_grad_() for one in inputs]
    double = [one.double().requires_grad_() for one in inputs]
    weights, expected = ours(*single), theirs(*double)
    torch.testing.assert_close(weights.double(), expected, rtol=1e-4, atol=1e-6)
    factor = torch.linspace(-1, 1, weights.numel()).reshape(weights.shape)
    grads = torch.autograd.grad((weights * factor).sum(), single)
    wanted = torch.autograd.grad((expected * factor.double()).sum(), double)
    for grad, good in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad.double(), good, rtol=1e-3, atol=1e-4 * float(good.abs().max()))
        assert torch.cosine_similarity(grad.double().flatten(), good.flatten(), dim=0) > 0.999

"""Spherical harmonics against associated Legendre polynomials, in float64."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from maquette.core.errors import ConfigError
from maquette.kernels.gaussians import sh_colors


@pytest.fixture(scope="module")
def gaussian_twins():
    path = Path(__file__).with_name("gaussian_twins.py")
    spec = importlib.util.spec_from_file_location("gaussian_twins", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("views", [1, 3])
def test_values_and_gradients_are_those_of_the_twin(gaussian_twins, degree, views):
    coefficients, means, eyes = 0.4 * torch.randn(40, 16, 3), torch.randn(40, 3), 3.0 * torch.randn(views, 3)
    inputs = [coefficients.requires_grad_(), means.requires_grad_()]
    doubles = [t.detach().double().requires_grad_() for t in inputs]
    colors = sh_colors(*inputs, eyes, degree)
    directions = normalize(doubles[1] - eyes.double()[:, None], dim=-1)
    basis = gaussian_twins.harmonics(directions, degree)
    expected = torch.einsum("bnk,nkc->bnc", basis, doubles[0][:, : (degree + 1) ** 2]).add(0.5).clamp(min=0.0)
    torch.testing.assert_close(colors.double(), expected, rtol=1e-5, atol=1e-5)
    assert (colors == 0.0).any() or degree == 0, "the clamp takes part"
    weights = torch.randn(colors.shape)
    (colors * weights).sum().backward()
    (expected * weights).sum().backward()
    for ours, theirs in zip(inputs, doubles, strict=True):
        grad = torch.zeros_like(theirs) if theirs.grad is None else theirs.grad
        torch.testing.assert_close(ours.grad.double(), grad, rtol=1e-4, atol=1e-5)


def test_a_color_that_is_not_a_number_stays_one_and_harms_no_gradient():
    coefficients, means = torch.randn(3, 4, 3), torch.randn(3, 3)
    coefficients[0, 2, 1] = float("nan")
    inputs = [coefficients.requires_grad_(), means.requires_grad_()]
    colors = sh_colors(*inputs, torch.zeros(1, 3), 1)
    assert colors.isnan().any(-1).tolist() == [[True, False, False]]
    colors[:, 1:].sum().backward()
    assert all(t.grad.isfinite().all() for t in inputs)


def test_a_camera_in_the_centre_of_a_gaussian_sees_a_color():
    means = torch.zeros(1, 3, requires_grad=True)
    colors = sh_colors(torch.ones(1, 16, 3), means, torch.zeros(1, 3), 3)
    colors.sum().backward()
    assert colors.isfinite().all()
    assert not means.grad.any()


def test_what_cannot_be_used_is_named():
    with pytest.raises(ConfigError, match=r"sh_colors\.degree"):
        sh_colors(torch.zeros(2, 25, 3), torch.zeros(2, 3), torch.zeros(1, 3), 4)
    with pytest.raises(ConfigError, match=r"sh_colors\.coefficients"):
        sh_colors(torch.zeros(2, 8, 3), torch.zeros(2, 3), torch.zeros(1, 3), 2)
    with pytest.raises(ConfigError, match=r"sh_colors\.means"):
        sh_colors(torch.zeros(2, 9, 3), torch.zeros(3, 3), torch.zeros(1, 3), 2)

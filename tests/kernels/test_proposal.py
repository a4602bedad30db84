"""The loss of a proposal against every pair of intervals in float64."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.kernels.proposal import interlevel_loss

TWINS = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("volume_twins.py"))))


def histograms(rays, n=12, m=7, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def one(count):
        edges = torch.rand(rays, count + 1, generator=generator).sort(-1).values
        return edges, torch.rand(rays, count, generator=generator) / count

    return *one(n), *one(m)


@pytest.mark.parametrize("rays", [1, 3, 300])
@pytest.mark.parametrize(("n", "m"), [(12, 7), (7, 12), (1, 1), (64, 64)])
def test_loss_and_gradient_are_those_of_the_twin(rays, n, m):
    edges, weights, coarse, proposal = histograms(rays, n, m)
    ours = proposal.clone().requires_grad_()
    theirs = proposal.double().requires_grad_()
    loss = interlevel_loss(edges, weights, coarse, ours)
    expected = TWINS.interlevel_loss(edges.double(), weights.double(), coarse.double(), theirs)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-7)
    factor = torch.linspace(0.5, 1.5, rays)
    grad = torch.autograd.grad((loss * factor).sum(), ours)[0]
    wanted = torch.autograd.grad((expected * factor.double()).sum(), theirs)[0]
    torch.testing.assert_close(grad.double(), wanted, rtol=1e-4, atol=1e-5)


def test_a_proposal_that_covers_costs_nothing():
    edges, weights, coarse, _ = histograms(5)
    coarse = torch.cat([torch.zeros(5, 1), coarse[:, 1:-1], torch.ones(5, 1)], -1)
    enough = torch.full((5, 7), float(weights.max()))
    assert torch.equal(interlevel_loss(edges, weights, coarse, enough), torch.zeros(5))


def test_where_both_histograms_are_the_same_nothing_is_missing():
    edges, weights, _, _ = histograms(5)
    assert interlevel_loss(edges, weights, edges, weights).abs().max() < 1e-12


def test_the_fine_weights_are_the_teacher_and_get_no_gradient():
    edges, weights, coarse, proposal = histograms(2)
    loss = interlevel_loss(edges, weights.requires_grad_(), coarse, proposal.requires_grad_())
    assert torch.autograd.grad(loss.sum(), weights, allow_unused=True) == (None,)


def test_no_rays_cost_nothing():
    assert interlevel_loss(*histograms(0)).shape == (0,)


def test_shapes_that_do_not_go_together_are_refused():
    edges, weights, coarse, proposal = histograms(3)
    with pytest.raises(ConfigError, match="interlevel_loss"):
        interlevel_loss(edges[:, 1:], weights, coarse, proposal)

import math

import pytest
import torch

from maquette.ops.losses import opaque, orient, sparsity, z_variance


def test_orient_by_hand():
    weights = torch.tensor([0.5, 0.5, 1.0], requires_grad=True)
    normal = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [0.0, 0.8, 0.6]])
    directions = torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3)
    loss = orient(weights, normal, directions, opacity=torch.tensor([1.0, 0.2, 0.0]))
    assert loss.item() == pytest.approx((0.5 + 0.36) / 2)
    assert not loss.requires_grad, "weights are held fixed"


def test_orient_trains_normals_and_accepts_columns():
    normal = torch.tensor([[0.0, 0.0, 1.0]], requires_grad=True)
    orient(torch.ones(1, 1), normal, torch.tensor([[0.0, 0.0, 1.0]]), torch.ones(1, 4, 4, 1)).backward()
    torch.testing.assert_close(normal.grad, torch.tensor([[0.0, 0.0, 2.0]]) / 16)


def test_orient_of_an_empty_picture_is_zero():
    assert orient(torch.zeros(0), torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(4)).item() == 0.0


def test_sparsity_by_hand():
    assert sparsity(torch.tensor([0.0, 1.0])).item() == pytest.approx((0.1 + math.sqrt(1.01)) / 2)


def test_opaque_is_the_binary_entropy():
    assert opaque(torch.tensor([0.5])).item() == pytest.approx(math.log(2))
    ends = opaque(torch.tensor([0.0, 1.0]))
    assert ends.item() == pytest.approx(-(1e-3 * math.log(1e-3) + 0.999 * math.log(0.999)), rel=1e-4)


def test_z_variance_counts_covered_rays_only():
    variance, opacity = torch.tensor([1.0, 3.0, 100.0]), torch.tensor([0.9, 0.6, 0.5])
    assert z_variance(variance, opacity).item() == pytest.approx(2.0)
    assert z_variance(variance, opacity * 0.1).item() == 0.0

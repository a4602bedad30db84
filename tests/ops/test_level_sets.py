import math

import pytest
import torch

from maquette.ops.level_sets import sign_entropy


def test_ends_are_drawn_to_each_other():
    inside, outside = (
        torch.tensor([-1.0, -0.1], requires_grad=True),
        torch.tensor([0.5, 0.0], requires_grad=True),
    )
    loss = sign_entropy(inside, outside)
    expected = [math.log(1 + math.exp(x)) for x in (1.0, 0.1, 0.5, 0.0)]
    assert loss.item() == pytest.approx(sum(expected) / 2)
    to_inside, to_outside = torch.autograd.grad(loss, (inside, outside))
    assert (to_inside < 0).all() and (to_outside > 0).all(), (
        "descent raises the inside and lowers the outside"
    )


def test_no_edges_cost_nothing():
    assert sign_entropy(torch.zeros(0), torch.zeros(0)) == 0

import pytest
import torch
from torch import nn

from maquette.training.ema import WeightAverage


def test_average_is_the_warmed_up_recursion() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average, expected = WeightAverage(model, decay=0.5), 0.0
    for n in range(6):
        nn.init.constant_(model.weight, n + 1.0)
        average.update(model)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * (n + 1.0)
    assert average.average["weight"].item() == pytest.approx(expected)


def test_swapping_twice_changes_nothing_and_frozen_weights_are_left_out() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    average = WeightAverage(model, decay=0.9)
    before = model.weight.detach().clone()
    nn.init.ones_(model.weight)
    average.swap(model)
    assert torch.equal(model.weight, before) and "bias" not in average.average
    average.swap(model)
    assert torch.equal(model.weight, torch.ones(2, 2)) and torch.equal(average.average["weight"], before)


def test_average_follows_rows_that_come_and_go() -> None:
    model = nn.Embedding(3, 1)
    average = WeightAverage(model, decay=0.9)
    average.average["weight"] = torch.tensor([[1.0], [2.0], [3.0]])
    weights = torch.tensor([[7.0], [8.0], [9.0], [10.0]])
    source, fresh = torch.tensor([2, 0, 2, 1]), torch.tensor([False, False, True, True])
    average.follow("weight", weights, source, fresh)
    average.follow("frozen", weights, source, fresh)
    assert average.average["weight"][:, 0].tolist() == [3.0, 1.0, 9.0, 10.0] and len(average.average) == 1

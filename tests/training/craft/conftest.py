"""A small model whose ways of computing are changed, and the check that its results are not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Counts the calls of its body."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.calls = 0
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4, 2)
        self.body.register_forward_hook(self.count)

    def count(self, *unused: Any) -> None:
        self.calls += 1

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.body(pictures).mean((2, 3)))


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def assert_nothing_but_the_way_changes() -> Callable[..., None]:
    """The same names, values and gradients; hooks stay outside, and see each call once."""

    def check(change: Callable[[nn.Module], Any], dropout: float = 0.5) -> None:
        out, gradients, _ = _result(lambda net: None, dropout)
        other, others, net = _result(change, dropout)
        torch.testing.assert_close(other, out, rtol=1e-5, atol=1e-6)
        assert others.keys() == gradients.keys() and net.calls == 1
        for name, value in gradients.items():
            torch.testing.assert_close(others[name], value, rtol=1e-5, atol=1e-6)

    return check


def _result(change: Callable[[nn.Module], Any], dropout: float) -> tuple[Tensor, dict[str, Tensor], Net]:
    net, pictures = Net(), torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(2))
    net.body[2].p = dropout
    names = list(net.state_dict())
    change(net)
    assert list(net.state_dict()) == names
    torch.manual_seed(3)
    out = net(pictures)
    out.square().sum().backward()
    return out.detach(), {name: one.grad for name, one in net.named_parameters()}, net

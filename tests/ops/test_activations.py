import math

import pytest
import torch
import torch.nn.functional as F

from maquette.core.errors import UnknownNameError
from maquette.ops.activations import get_activation

X = torch.tensor([-2.0, 0.0, 0.5, 3.0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, X),
        ("none", X),
        ("softplus", F.softplus(X)),
        ("shifted_softplus", F.softplus(X - 1)),
        ("exp", torch.exp(X)),
        ("shifted_trunc_exp", torch.exp(X - 1)),
        ("scale_-11_01", X / 2 + 0.5),
        ("ReLU", F.relu(X)),
        ("LeakyReLU", F.leaky_relu(X)),
        ("Sigmoid", torch.sigmoid(X)),
        ("Squareplus", (X + torch.sqrt(X * X + 4)) / 2),
    ],
)
def test_values(name, expected):
    torch.testing.assert_close(get_activation(name)(X), expected)


def test_truncated_exp_limits_the_gradient_only():
    x = torch.tensor([1.0, 20.0], requires_grad=True)
    y = get_activation("trunc_exp")(x)
    y.sum().backward()
    torch.testing.assert_close(y, torch.exp(x))
    torch.testing.assert_close(x.grad, torch.tensor([math.exp(1.0), math.exp(15.0)]))


def test_srgb_fixed_points():
    got = get_activation("lin2srgb")(torch.tensor([0.0, 0.5, 1.0, 2.0]))
    torch.testing.assert_close(got, torch.tensor([0.0, 0.735357, 1.0, 1.0]), atol=1e-5, rtol=0)


def test_a_typo_is_answered_with_the_near_name():
    with pytest.raises(UnknownNameError, match="sigmoid"):
        get_activation("sigmoyd")


def test_a_function_that_is_no_activation_is_refused():
    with pytest.raises(UnknownNameError):
        get_activation("linear")

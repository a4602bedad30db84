import pytest
import torch
from torch import nn

from maquette.core.errors import ConfigError, UserError
from maquette.training.inspect import (
    activation_picture,
    activation_pictures,
    capture_features,
    capture_gradients,
    capture_inputs,
    retain_gradients,
)


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True), nn.Linear(3, 1))


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return sum(len(getattr(one, kind)) for one in model.modules() for kind in kinds)


def test_features_and_inputs_are_those_of_the_last_call(model: nn.Module) -> None:
    x = torch.randn(3, 2)
    with capture_features(model, ["0", "2"]) as features, capture_inputs(model, ["2"]) as inputs:
        model(torch.zeros(1, 2))
        out = model(x)
    hidden = x @ model[0].weight.T + model[0].bias  # before the layer that works in place
    torch.testing.assert_close(features["0"], hidden)
    torch.testing.assert_close(features["2"], out)
    torch.testing.assert_close(inputs["2"], (hidden.relu(),))
    assert not features["0"].requires_grad and hooks(model) == 0


def test_gradients_of_outputs(model: nn.Module) -> None:
    model[1] = nn.ReLU()
    x = torch.randn(3, 2)
    with capture_gradients(model, ["0", "2"]) as gradients, retain_gradients(model, ["0"]) as retained:
        model(x).square().sum().backward()
    out = model(x)
    expected = 2 * out @ model[2].weight * (model[0](x) > 0)
    torch.testing.assert_close(gradients["2"], (2 * out.detach(),))
    torch.testing.assert_close(gradients["0"], (expected.detach(),))
    torch.testing.assert_close(retained["0"].grad, expected.detach())
    assert hooks(model) == 0


def test_hooks_go_when_the_block_breaks(model: nn.Module) -> None:
    with (
        pytest.raises(RuntimeError, match="stop"),
        capture_features(model, ["0"]),
        capture_gradients(model, ["2"]),
    ):
        raise RuntimeError("stop")
    with pytest.raises(ConfigError, match="near: 0"), capture_features(model, ["0", "zero"]):
        pass
    assert hooks(model) == 0


def test_picture_shows_each_channel_in_its_own_range() -> None:
    planes = torch.stack([torch.tensor([[0.0, 5.0]]), torch.tensor([[-1.0, 1.0]]), torch.full((1, 2), 3.0)])
    picture = activation_picture(planes[None])
    assert picture.shape == (3, 5, 3)
    assert picture[..., 0].tolist() == [[0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert activation_picture(torch.full((2, 100, 4, 4), float("nan")), item=1).shape == (39, 39, 3)


def test_pictures_of_modules(model: nn.Module) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    pictures = activation_pictures(net, ["0"], torch.rand(1, 3, 6, 5))
    assert pictures["0"].shape == (13, 11, 3) and pictures["0"].max() == 1
    with pytest.raises(UserError, match=r"gives no features.*\n.*\(1, 4\)"):
        activation_pictures(net, ["2"], torch.rand(1, 3, 6, 5))

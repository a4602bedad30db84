import pytest
import torch
from torch import nn

from maquette.core.errors import UserError
from maquette.training.inspect import (
    change_last_layer,
    count_parameters,
    last_layer,
    load_partially,
    remove_last_layer,
)


def net() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.ReLU()), nn.Flatten(), nn.Linear(16, 5)
    )


def test_last_layer_gets_other_outputs() -> None:
    model, x = net(), torch.randn(2, 3, 2, 2)
    kept = model[0](x)
    new = change_last_layer(model, 7, generator=torch.Generator().manual_seed(4))
    again = change_last_layer(net(), 7, generator=torch.Generator().manual_seed(4))
    assert last_layer(model) == ("2", new) and model(x).shape == (2, 7)
    assert torch.equal(new.weight, again.weight) and torch.equal(new.bias, again.bias)
    assert torch.equal(model[0](x), kept)
    assert new.weight.std().item() == pytest.approx((1 / 16 / 3) ** 0.5, rel=0.2)


def test_a_convolution_keeps_its_shape_and_precision() -> None:
    model = net().double()
    new = change_last_layer(model, 6, path="0.0")
    assert isinstance(new, nn.Conv2d) and new.bias is None and new.weight.dtype == torch.float64
    assert model[0](torch.zeros(1, 3, 5, 4, dtype=torch.float64)).shape == (1, 6, 5, 4)


def test_without_its_last_layer_a_model_gives_features() -> None:
    model, x = net(), torch.randn(2, 3, 2, 2)
    features = model[:2](x)
    removed = remove_last_layer(model)
    assert isinstance(removed, nn.Linear) and torch.equal(model(x), features)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: change_last_layer(net(), 2, path="1"), "layers: 0.0, 2"),
        (lambda: change_last_layer(net(), 0), "at least one output"),
        (lambda: remove_last_layer(nn.Sequential(nn.ReLU())), "contains no linear"),
        (lambda: change_last_layer(nn.Linear(2, 2), 3), "contains no linear"),
    ],
)
def test_layers_that_cannot_change(call, text: str) -> None:
    with pytest.raises(UserError, match=text):
        call()


def test_shared_parameters_count_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    assert count_parameters(model) == (6, 4)


def test_weights_that_fit_in_part_are_reported() -> None:
    source, model = net(), net()
    change_last_layer(source, 7)
    state = {f"net.{name}": value for name, value in source.state_dict().items()}
    state |= {"net.extra": torch.zeros(1), "other": torch.zeros(1)}
    before = model[2].weight.detach().clone()
    report = load_partially(model, state, prefix="net.", ignore=["2.bias"])
    assert report.taken == ["0.0.weight"] and report.unknown == ["extra"] and report.ignored == ["2.bias"]
    assert report.misfits == ["2.weight: (7, 16) -> (5, 16)"] and report.missing == []
    assert str(report).splitlines()[0] == "1 taken, 0 missing, 1 unknown, 1 misfits, 1 ignored"
    assert torch.equal(model[0][0].weight, source[0][0].weight) and torch.equal(model[2].weight, before)


def test_nothing_that_fits_is_an_error() -> None:
    with pytest.raises(UserError, match="No weight fits"):
        load_partially(net(), net().state_dict(), prefix="module.")

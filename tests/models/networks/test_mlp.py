import pytest
import torch

from maquette.core.errors import ConfigError, UnknownKeyError, UnknownNameError
from maquette.models.networks import get_mlp


def test_two_hidden_layers_by_hand():
    network = get_mlp(3, 2, {"n_neurons": 5, "n_hidden_layers": 2, "output_activation": "sigmoid"})
    weights = [network.state_dict()[f"layers.{i}.weight"] for i in (0, 2, 4)]
    assert [tuple(w.shape) for w in weights] == [(5, 3), (5, 5), (2, 5)]
    assert len(network.state_dict()) == 3, "no biases"
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.sigmoid(torch.relu(torch.relu(x @ weights[0].T) @ weights[1].T) @ weights[2].T)
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("otype", ["FullyFusedMLP", "CutlassMLP"])
def test_names_of_gpu_libraries_are_the_same_network(otype):
    torch.manual_seed(0)
    ours, theirs = get_mlp(4, 2, {"otype": "VanillaMLP"}), get_mlp(4, 2, {"otype": otype})
    x = torch.ones(1, 4)
    assert torch.equal(ours(x), theirs(x))


def test_stays_in_float32_under_autocast():
    network = get_mlp(3, 1, {})
    x = torch.rand(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = network(x)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, network(x))


def test_typos_and_wrong_types_are_answered():
    with pytest.raises(UnknownNameError, match="VanillaMLP"):
        get_mlp(3, 1, {"otype": "VanilaMLP"})
    with pytest.raises(UnknownKeyError, match="n_neurons"):
        get_mlp(3, 1, {"n_neuron": 4})
    with pytest.raises(ConfigError, match="an integer"):
        get_mlp(3, 1, {"n_neurons": "many"})

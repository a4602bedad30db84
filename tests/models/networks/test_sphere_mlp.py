import pytest
import torch

from maquette.core.errors import ConfigError, UnknownKeyError
from maquette.models.geometry.implicit_sdf import ImplicitSDF
from maquette.models.networks import get_mlp, init_parameters

CONFIG = {"otype": "SphereInitVanillaMLP", "n_neurons": 256, "n_hidden_layers": 3, "sphere_init_radius": 0.5}


def points(n=400):
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1


def network(**changes):
    mlp = get_mlp(3, 1, {**CONFIG, **changes})
    init_parameters(mlp, seed=1, prefix="mlp")
    return mlp


def test_it_starts_as_the_distance_to_a_sphere():
    distance = network()(points())[:, 0]
    expected = points().norm(dim=-1) - 0.5
    assert (distance - expected).abs().mean() < 0.15
    assert torch.corrcoef(torch.stack([distance, expected]))[0, 1] > 0.93


def test_inside_out_turns_the_sign():
    inside_out = network(inside_out=True)(points())
    assert torch.corrcoef(torch.stack([inside_out[:, 0], points().norm(dim=-1)]))[0, 1] < -0.93


def test_features_have_no_influence_at_first():
    mlp = get_mlp(7, 2, CONFIG)
    first, second = (torch.cat([points(), factor * torch.ones(400, 4)], -1) for factor in (0.0, 5.0))
    torch.testing.assert_close(mlp(first), mlp(second))


def test_everything_is_trained_and_differentiable_twice():
    mlp = network(n_neurons=16)
    x = points(20).requires_grad_()
    slope = torch.autograd.grad(mlp(x).sum(), x, create_graph=True)[0]
    slope.square().sum().backward()
    assert all(p.grad is not None for name, p in mlp.named_parameters() if "layers.6.bias" not in name)


def test_the_weights_have_the_names_of_older_checkpoints():
    names = {f"layers.{i}.{part}" for i in (0, 2, 4, 6) for part in ("weight_g", "weight_v", "bias")}
    assert set(network().state_dict()) == names


def test_a_surface_starts_as_its_sphere():
    grid = {
        "otype": "HashGrid",
        "n_levels": 2,
        "log2_hashmap_size": 8,
        "base_resolution": 4,
        "include_xyz": True,
    }
    geometry = ImplicitSDF(
        {
            "pos_encoding_config": {**grid, "include_xyz": True},
            "mlp_network_config": {**CONFIG, "activation": "ReLU"},
            "n_feature_dims": 0,
            "isosurface_resolution": 24,
        }
    )
    init_parameters(geometry, seed=1, prefix="geometry")
    with torch.no_grad():
        radius = geometry.isosurface().vertices.norm(dim=-1)
    assert 0.35 < radius.min() and radius.max() < 0.7


def test_what_it_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="coordinates"):
        get_mlp(2, 1, CONFIG)
    with pytest.raises(ConfigError, match="hidden layer"):
        network(n_hidden_layers=0)
    with pytest.raises(UnknownKeyError, match="radius"):
        network(radius=1.0)

import math

import pytest
import torch
import torch.nn.functional as F

from maquette.core.errors import ConfigError
from maquette.models.geometry import implicit_volume
from maquette.models.geometry.base import BaseExplicitGeometry
from maquette.models.geometry.density_field import inverse_activation
from maquette.models.geometry.implicit_volume import ImplicitVolume
from maquette.models.geometry.volume_grid import VolumeGrid, trilinear
from maquette.ops.activations import get_activation
from maquette.ops.mesh import volume

SMALL_GRID = {
    "otype": "HashGrid",
    "n_levels": 4,
    "n_features_per_level": 2,
    "log2_hashmap_size": 12,
    "base_resolution": 4,
    "per_level_scale": 1.5,
}


def make(**cfg):
    return VolumeGrid({"grid_size": [9, 8, 7], **cfg})


def points(n=64, scale=0.9, seed=0):
    return (torch.rand(n, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * scale


def filled(**cfg):
    geometry = make(**cfg)
    with torch.no_grad():
        geometry.grid.normal_(generator=torch.Generator().manual_seed(1))
    return geometry


def test_fields_have_their_shapes_and_leading_dimensions():
    out = make(n_feature_dims=5)(points(24).reshape(2, 3, 4, 3), output_normal=True)
    assert out.density.shape == (2, 3, 4, 1)
    assert out.features.shape == (2, 3, 4, 5)
    assert out.normal.shape == out.shading_normal.shape == (2, 3, 4, 3)


def test_the_weights_have_the_names_and_shapes_of_older_checkpoints():
    shapes = {name: tuple(value.shape) for name, value in make(density_bias=-1.0).state_dict().items()}
    assert shapes == {"bbox": (2, 3), "grid": (1, 4, 9, 8, 7), "density_scale": ()}
    assert "density_scale" not in dict(make().named_parameters()), "of a blob it is not learned"


def test_density_starts_as_its_blob():
    x = points()
    blob = 5.0 * (1.0 - x.norm(dim=-1, keepdim=True) / 0.5)
    torch.testing.assert_close(make().forward_density(x), F.softplus(blob), atol=1e-5, rtol=1e-5)
    assert torch.equal(make(density_bias=-2.0).forward_density(x), F.softplus(torch.full((64, 1), -2.0)))


def test_a_linear_field_is_interpolated_exactly():
    geometry = make(density_activation="none", density_bias=0.0)
    slope = torch.tensor([1.0, -2.0, 3.0])
    with torch.no_grad():
        geometry.grid[0, 0] = (geometry.centers() @ slope).reshape(9, 8, 7)
    x = points(scale=0.8)
    torch.testing.assert_close(geometry.forward_density(x)[:, 0], x @ slope, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 3, 50])
def test_own_interpolation_is_that_of_torch_in_values_and_gradients(n):
    grid = torch.randn(2, 4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    unit = torch.rand(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 1.2 - 0.1
    inputs = [grid.requires_grad_(), unit.requires_grad_()]
    ours = trilinear(*inputs)
    where = unit.reshape(1, 1, 1, -1, 3) * 2 - 1
    theirs = F.grid_sample(grid[None], where, padding_mode="border", align_corners=False)[0, :, 0, 0].T
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours.square().sum(), inputs),
        torch.autograd.grad(theirs.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["analytic", "finite_difference", "finite_difference_laplacian"])
def test_normals_point_down_the_density(kind):
    geometry = make(normal_type=kind)
    x = points()
    x = x[x.norm(dim=-1) > 0.2]
    normal = geometry(x, output_normal=True).normal
    torch.testing.assert_close(normal.norm(dim=-1), torch.ones(len(x)))
    assert (normal * F.normalize(x, dim=-1)).sum(dim=-1).min() > 0.95


@pytest.mark.parametrize("kind", ["analytic", "finite_difference", "pred"])
def test_normals_train_the_grid(kind):
    geometry = filled(normal_type=kind)
    if kind == "pred":
        torch.nn.init.normal_(geometry.normal_grid)
    out = geometry(points(), output_normal=True)
    (out.normal * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    trained = geometry.normal_grid if kind == "pred" else geometry.grid
    assert trained.grad.abs().sum() > 0


def test_analytic_normals_in_evaluation_carry_no_graph():
    geometry = filled(normal_type="analytic").eval()
    with torch.no_grad():
        out = geometry(points(), output_normal=True)
        assert torch.is_grad_enabled() is False
    assert not any(value.requires_grad for value in out.values())


def test_isosurface_of_the_blob():
    mesh = make(grid_size=[24, 24, 24], isosurface_resolution=40, isosurface_threshold=1.0).isosurface()
    radius = 0.5 * (1.0 - math.log(math.e - 1) / 5.0)
    assert volume(mesh).item() == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.02)


@pytest.mark.parametrize("activation", ["softplus", "exp", "trunc_exp", "none"])
def test_activations_are_inverted(activation):
    function = get_activation(activation)
    raw = torch.linspace(-5, 8, 50)
    torch.testing.assert_close(inverse_activation(function, function(raw)), raw, atol=1e-2, rtol=1e-3)


def test_an_implicit_volume_becomes_a_grid():
    source = ImplicitVolume({"pos_encoding_config": SMALL_GRID, "density_bias": "blob_dreamfusion"})
    grid = VolumeGrid.create_from(source, {"grid_size": [32, 32, 32], "density_bias": -1.0})
    at = grid.centers()
    torch.testing.assert_close(
        grid.forward_density(at), source.forward_density(at).detach(), atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(grid.export(at)["features"], source.export(at)["features"].detach())


def test_a_grid_becomes_one_of_another_resolution():
    source = make(grid_size=[20, 20, 20])
    grid = VolumeGrid.create_from(source, {"grid_size": [16, 16, 16]})
    at = grid.centers()
    torch.testing.assert_close(
        grid.forward_density(at), source.forward_density(at).detach(), atol=1e-3, rtol=1e-3
    )
    bare = VolumeGrid.create_from(filled(), {"grid_size": [4, 4, 4]}, copy_net=False)
    assert torch.equal(bare.grid[0, 1:], torch.zeros(3, 4, 4, 4))


def test_a_grid_becomes_an_implicit_volume(monkeypatch):
    monkeypatch.setattr(implicit_volume, "FIT_POINTS", 2048)
    source = make(grid_size=[24, 24, 24], density_blob_scale=20.0)
    with torch.no_grad():
        source.grid[0, 1] = 0.7
    cfg = {"pos_encoding_config": SMALL_GRID, "density_bias": 0.0, "mlp_network_config": {"n_neurons": 16}}
    fitted = ImplicitVolume.create_from(source, cfg)
    x = points(2000)
    with torch.no_grad():
        opacity = [1 - torch.exp(-one.forward_density(x) * 0.1) for one in (fitted, source)]
        features = fitted(x).features[source.forward_density(x)[:, 0] > 5.0]
    assert (opacity[0] - opacity[1]).abs().mean() < 0.02
    torch.testing.assert_close(features[:, 0].mean(), torch.tensor(0.7), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("cfg", "key"),
    [
        ({"grid_size": [1, 4, 4]}, "grid_size"),
        ({"density_bias": "cube"}, "density_bias"),
        ({"density_blob_std": 0.0}, "density_blob_std"),
        ({"normal_type": "exact"}, "normal_type"),
        ({"n_feature_dims": -1}, "n_feature_dims"),
        ({"isosurface_deformable_grid": True}, "isosurface_deformable_grid"),
    ],
)
def test_wrong_values_are_refused(cfg, key):
    with pytest.raises(ConfigError, match=key):
        make(**cfg)


def test_what_has_neither_density_nor_surface_is_refused():
    class Other(BaseExplicitGeometry):
        """Without a surface."""

    with pytest.raises(ConfigError, match="geometry_convert_from"):
        VolumeGrid.create_from(Other({}))

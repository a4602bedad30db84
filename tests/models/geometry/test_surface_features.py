import pytest
import torch

from maquette.models.geometry.base import BaseImplicitGeometry, GeometryOutput
from maquette.models.geometry.custom_mesh import CustomMesh
from maquette.models.geometry.features import same_networks, shown_features
from maquette.models.geometry.implicit_volume import ImplicitVolume
from maquette.ops.mesh import Mesh

GRID = {"n_levels": 3, "log2_hashmap_size": 10, "base_resolution": 4, "per_level_scale": 1.5}
NETWORK = {"n_neurons": 8, "n_hidden_layers": 1}

TRIANGLE = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))


def make(cls, grid=None, **cfg):
    return cls({"pos_encoding_config": {**GRID, **(grid or {})}, "mlp_network_config": NETWORK, **cfg})


class Onion(BaseImplicitGeometry):
    """Dense from a little below z = 0 on; features are the height."""

    def forward(self, points, output_normal=False):
        return GeometryOutput(density=1e3 * (points[..., 2:] < -0.02), features=points[..., 2:])

    def export(self, points, **kwargs):
        return {"features": points[..., 2:]}


@pytest.mark.parametrize(
    ("grid", "cfg", "same"),
    [
        ({}, {}, True),
        ({"otype": "ProgressiveBandHashGrid"}, {}, True),
        ({"n_levels": 4}, {}, False),
        ({"per_level_scale": 1.51}, {}, False),
        ({"base_resolution": 5}, {}, False),
        ({}, {"radius": 2.0}, False),
        ({}, {"mlp_network_config": {**NETWORK, "activation": "Softplus"}}, False),
        ({}, {"n_feature_dims": 4}, False),
        ({}, {"n_feature_dims": 0}, False),
    ],
)
def test_networks_are_the_same_only_where_their_weights_mean_the_same(grid, cfg, same):
    old = make(ImplicitVolume, grid)
    for name, value in cfg.items():
        old = make(ImplicitVolume, grid, **{name: value})
    assert same_networks(make(CustomMesh), old) is same


def test_a_volume_shows_what_its_density_stops_rays_at():
    points = torch.zeros(5, 3)
    normals = torch.tensor([0.0, 0.0, 1.0]).expand(5, 3)
    shown = shown_features(Onion({}), points, normals, 0.08)
    torch.testing.assert_close(shown, torch.full((5, 1), -0.03), atol=1e-3, rtol=0)


def test_what_has_no_density_shows_its_surface():
    mesh = make(CustomMesh)
    points = torch.rand(5, 3) - 0.5
    shown = shown_features(mesh, points, torch.ones(5, 3), 0.1)
    assert torch.equal(shown, mesh.export(points)["features"])


def test_other_numbers_of_features_are_left_alone():
    old, new = make(CustomMesh, n_feature_dims=4), make(CustomMesh)
    before = new.encoding.encoding.table.clone()
    new.inherit_features(old, TRIANGLE)
    assert torch.equal(new.encoding.encoding.table, before)

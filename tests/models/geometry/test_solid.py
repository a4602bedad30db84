"""Volumes that start from a surface, or from Gaussians."""

import math

import pytest
import torch
import trimesh

from maquette.core.errors import UserError
from maquette.core.registry import find
from maquette.models.geometry.custom_mesh import CustomMesh
from maquette.models.geometry.density_field import examples_near
from maquette.models.geometry.gaussian_splatting import GaussianSplatting
from maquette.models.geometry.implicit_volume import ImplicitVolume
from maquette.models.geometry.solid import Solid, as_density
from maquette.models.geometry.tetrahedra_sdf_grid import TetrahedraSDFGrid
from maquette.models.geometry.volume_grid import VolumeGrid
from maquette.models.networks import init_parameters
from maquette.ops.gaussians import Gaussians, colors_to_sh
from maquette.ops.mesh import Mesh, triangles

GRID = {"otype": "HashGrid", "n_levels": 2, "n_features_per_level": 2, "log2_hashmap_size": 8,
        "base_resolution": 4, "per_level_scale": 2.0}  # fmt: skip
NETWORKS = {"pos_encoding_config": GRID, "mlp_network_config": {"n_neurons": 8, "n_hidden_layers": 1}}


def box(**cfg: object) -> CustomMesh:
    """Half-axes 0.4, 0.5, 0.6."""
    solid = trimesh.creation.box((0.8, 1.0, 1.2))
    geometry = CustomMesh({**NETWORKS, **cfg})
    vertices = torch.tensor(solid.vertices, dtype=torch.float32)
    geometry.set_mesh(Mesh(vertices, torch.tensor(solid.faces)))
    return geometry


def shell(color: list[float]) -> GaussianSplatting:
    """A ball of Gaussians of one color."""
    points = torch.tensor(trimesh.creation.icosphere(3, 0.5).vertices, dtype=torch.float32)
    n = len(points)
    cloud = GaussianSplatting({"init_num_pts": n, "isosurface_resolution": 32, "isosurface_threshold": 5.0})
    cloud.set_rows(
        Gaussians(
            means=points,
            rotations=torch.tensor([1.0, 0, 0, 0]).expand(n, 4),
            scales=torch.full((n, 3), 0.04),
            opacities=torch.full((n,), 0.9),
            sh=colors_to_sh(torch.tensor(color)).expand(n, 1, 3),
        )
    )
    return cloud


def test_density_of_a_solid_is_a_fifth_at_the_surface_and_falls_as_a_laplacian() -> None:
    offsets = torch.tensor([-0.2, -0.03, -0.01, 0.0, 0.01, 0.05])
    points = torch.stack([0.4 + offsets, torch.zeros(6), torch.zeros(6)], dim=-1)
    found = Solid(box(), VolumeGrid).evaluate(points, False).density[:, 0]
    half = offsets + 0.01 * math.log(2.5)
    falling = 50.0 * torch.exp(-half.abs() / 0.01)
    torch.testing.assert_close(found, torch.where(half > 0, falling, 100.0 - falling), rtol=1e-3, atol=1e-3)
    assert found[3] == pytest.approx(20.0, rel=1e-3)


@pytest.mark.parametrize("threshold", ["auto", 25.0])
def test_a_surface_that_was_a_volume_has_its_size_again(threshold: object) -> None:
    cfg = {"grid_size": [100] * 3, "n_feature_dims": 0, "isosurface_threshold": threshold}
    with torch.no_grad():
        a, b, c = triangles(VolumeGrid.create_from(box(), cfg).isosurface()).unbind(dim=1)
    volume = (a * torch.linalg.cross(b, c, dim=-1)).sum() / 6
    assert float(volume) == pytest.approx(0.8 * 1.0 * 1.2, rel=0.02)


def test_features_of_a_surface_come_along_where_there_are_any() -> None:
    geometry = box()
    grid = VolumeGrid.create_from(geometry, {"grid_size": [8, 8, 8]})
    at = grid.centers()
    torch.testing.assert_close(grid.export(at)["features"], geometry.export(at)["features"].detach())
    plain = {"isosurface_resolution": 8, "shape_init": "sphere", "shape_init_params": 0.5}
    bare = TetrahedraSDFGrid({**NETWORKS, **plain, "geometry_only": True})
    assert Solid(bare, VolumeGrid).n_features == 0
    assert not VolumeGrid.create_from(bare, {"grid_size": [8, 8, 8]}).grid[0, 1:].any()


def test_a_deep_volume_learns_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the rate of the encoding its networks would be dead after a few steps."""
    monkeypatch.setattr("maquette.models.geometry.density_field.POOL", 2**14)
    monkeypatch.setattr("maquette.models.geometry.implicit_volume.FIT_POINTS", 1024)
    grid = {**GRID, "n_levels": 4, "log2_hashmap_size": 14, "base_resolution": 8}
    network = {"n_neurons": 64, "n_hidden_layers": 3}
    cfg = {"pos_encoding_config": grid, "mlp_network_config": network, "n_feature_dims": 0}
    cfg |= {"density_activation": "exp", "density_bias": -1.0, "isosurface_resolution": 48}
    torch.manual_seed(0)
    found = ImplicitVolume.create_from(box(), cfg)
    with torch.no_grad():
        size = found.isosurface().vertices.abs().amax(dim=0)
    torch.testing.assert_close(size, torch.tensor([0.4, 0.5, 0.6]), rtol=0, atol=0.1)


def test_an_open_surface_has_no_inside() -> None:
    geometry = box()
    geometry.set_mesh(Mesh(geometry.v_buffer, geometry.t_buffer[1:]))
    with pytest.raises(UserError, match="not closed"):
        VolumeGrid.create_from(geometry, {})


def test_a_grid_holds_the_density_and_the_colors_of_gaussians() -> None:
    cloud = shell([0.2, 0.5, 0.75])
    grid = VolumeGrid.create_from(cloud, {"grid_size": [24, 24, 24], "density_bias": 0.0})
    at = grid.centers()
    with torch.no_grad():
        torch.testing.assert_close(grid.forward_density(at), cloud.forward_density(at), rtol=1e-3, atol=1e-3)
        colors = torch.sigmoid(grid.export(at)["features"])
    torch.testing.assert_close(colors, torch.tensor([0.2, 0.5, 0.75]).expand_as(colors), rtol=0, atol=1e-3)


def test_examples_are_mostly_near_and_depend_on_the_generator_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maquette.models.geometry.density_field.POOL", 2**12)
    cloud = as_density(shell([0.5] * 3), VolumeGrid)
    draw = examples_near(cloud, cloud.gaussians().means, 500, 1.0)
    points, known = draw(torch.Generator().manual_seed(3))
    assert points.shape == (500, 3) and points.abs().max() <= 1.0
    near = ((points.norm(dim=-1) - 0.5).abs() < 0.15).float().mean()
    assert 0.75 < near < 0.9
    torch.testing.assert_close(known.density, cloud.evaluate(points, False).density, rtol=1e-3, atol=1e-3)
    assert torch.equal(points, draw(torch.Generator().manual_seed(3))[0])


@pytest.mark.parametrize("name", ["implicit-volume", "implicit-sdf"])
def test_networks_for_normals_and_offsets_come_along(name: str, caplog: pytest.LogCaptureFixture) -> None:
    moves = {"isosurface_deformable_grid": True} if name == "implicit-sdf" else {}
    bias = {"sdf_bias": "sphere", "sdf_bias_params": 0.5} if moves else {}
    cfg = {**NETWORKS, **bias, **moves, "normal_type": "pred", "isosurface_resolution": 16}
    source = find(name)(cfg)
    init_parameters(source, seed=3, prefix="geometry")
    copy = find(name).create_from(source, cfg)
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    assert torch.equal(copy(points, output_normal=True).normal, source(points, output_normal=True).normal)
    if moves:
        assert torch.equal(copy.forward_field(points)[1], source.forward_field(points)[1])
    assert caplog.messages == []
    find(name).create_from(source, {**NETWORKS, **bias, "normal_type": None})
    networks = ["normal_network", *(["deformation_network"] if moves else [])]
    left = "of the old geometry is not taken along: the new one has none"
    assert caplog.messages == [f"{one} {left}" for one in networks]


def test_normals_that_nothing_can_give_are_told(caplog: pytest.LogCaptureFixture) -> None:
    cfg = {**NETWORKS, "normal_type": None}
    copy = ImplicitVolume.create_from(ImplicitVolume(cfg), {**cfg, "normal_type": "pred"})
    assert "normal_network of the new geometry begins untrained" in caplog.text
    caplog.clear()
    grid = {"grid_size": [6, 6, 6], "normal_type": "pred"}
    assert not VolumeGrid.create_from(ImplicitVolume(cfg), grid).normal_grid.any()
    assert "begin untrained" in caplog.text
    caplog.clear()
    made = VolumeGrid.create_from(copy, grid)
    at = made.centers()
    expected = copy(at, output_normal=True).normal.detach()
    torch.testing.assert_close(made(at, output_normal=True).normal.detach(), expected)
    assert caplog.messages == []

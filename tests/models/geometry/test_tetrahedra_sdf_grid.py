import math

import pytest
import torch

from maquette.core.errors import ConfigError, MissingFileError, RunFailed, UserError
from maquette.io.mesh import write_mesh
from maquette.kernels.isosurface import marching_cubes
from maquette.models.geometry.base import BaseGeometry
from maquette.models.geometry.custom_mesh import CustomMesh
from maquette.models.geometry.implicit_sdf import ImplicitSDF
from maquette.models.geometry.implicit_volume import ImplicitVolume
from maquette.models.geometry.tetrahedra_sdf_grid import TetrahedraSDFGrid
from maquette.ops.mesh import Mesh, bounding_box, component_labels, edges, select_faces, volume

NETWORKS = {
    "pos_encoding_config": {
        "otype": "HashGrid",
        "n_levels": 4,
        "n_features_per_level": 2,
        "log2_hashmap_size": 12,
        "base_resolution": 4,
        "per_level_scale": 1.5,
    },
    "mlp_network_config": {"n_neurons": 16, "n_hidden_layers": 1},
}
SPHERE = {"shape_init": "sphere", "shape_init_params": 0.5}
BALL = 4 / 3 * math.pi * 0.5**3
METHODS = [{"isosurface_method": "mt"}, {"isosurface_method": "flexicubes"}]


def make(**cfg):
    return TetrahedraSDFGrid({"isosurface_resolution": 24, **NETWORKS, **cfg})


def ball_mesh(radius=0.5, centre=(0.0, 0.0, 0.0), n=24):
    axis = torch.linspace(-1, 1, n)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    level = (points - torch.tensor(centre)).norm(dim=-1) - radius
    return Mesh(*marching_cubes(level, torch.tensor([[-1.0] * 3, [1.0] * 3])))


def is_watertight(mesh):
    return bool((edges(mesh)[1] == 2).all())


class BallVolume(ImplicitVolume):
    """A dense ball at the right, with a soft rim, and a small one far from it."""

    def forward_density(self, points):
        ball = 0.4 - (points - points.new_tensor([0.3, 0.0, 0.0])).norm(dim=-1, keepdim=True)
        crumb = 0.06 - (points - points.new_tensor([0.3, 0.7, 0.0])).norm(dim=-1, keepdim=True)
        return 50.0 * torch.sigmoid(torch.maximum(ball, crumb) * 40.0)


@pytest.mark.parametrize("method", METHODS)
def test_it_starts_as_its_shape(method):
    geometry = make(**SPHERE, **method)
    mesh = geometry.isosurface()
    assert is_watertight(mesh) and mesh.vertices.requires_grad
    assert volume(mesh).item() == pytest.approx(BALL, rel=0.06)
    with torch.no_grad():
        assert not geometry.isosurface().vertices.requires_grad


def test_ellipsoid():
    mesh = make(
        shape_init="ellipsoid", shape_init_params=[0.7, 0.5, 0.3], isosurface_resolution=48
    ).isosurface()
    assert volume(mesh).item() == pytest.approx(4 / 3 * math.pi * 0.7 * 0.5 * 0.3, rel=0.04)
    extent = mesh.vertices.detach().abs().amax(dim=0)
    torch.testing.assert_close(extent, torch.tensor([0.7, 0.5, 0.3]), atol=0.02, rtol=0)


def test_mesh_file_with_axes_and_size(tmp_path):
    """A file with y up and its front at +z: a long box that points to the front, with a bump on top."""
    path = tmp_path / "shape.obj"
    file_mesh = ball_mesh()
    scaled = file_mesh.vertices * torch.tensor([0.2, 0.3, 1.0]) + 7.0
    write_mesh(Mesh(scaled, file_mesh.faces), path)
    geometry = make(
        shape_init=f"mesh:{path}",
        shape_init_params=0.8,
        shape_init_mesh_up="+y",
        shape_init_mesh_front="+z",
        isosurface_resolution=48,
    )
    extent = geometry.isosurface().vertices.detach().abs().amax(dim=0)
    torch.testing.assert_close(extent, 0.8 * torch.tensor([1.0, 0.2, 0.3]), atol=0.03, rtol=0)


def test_nothing_yet_is_empty_in_training_and_an_error_elsewhere():
    geometry = make()
    mesh = geometry.isosurface()
    assert mesh.n_faces == 0
    (mesh.vertices.sum() + mesh.extras["sdf_regularity"]).backward()
    assert (geometry.sdf.grad == 0).all()
    with torch.no_grad(), pytest.raises(RunFailed, match="empty"):
        geometry.isosurface()


def test_values_that_are_not_finite_are_named():
    geometry = make(**SPHERE)
    with torch.no_grad(), pytest.raises(RunFailed, match="not finite"):
        geometry.sdf[geometry.nodes[:, 0] > 0.2] = math.nan
        geometry.isosurface()


@pytest.mark.parametrize("method", METHODS)
def test_a_surface_trains_to_another_volume(method):
    geometry = make(**SPHERE, **method, isosurface_resolution=16)
    optimizer = torch.optim.Adam(geometry.parameters(), lr=0.01)
    for _ in range(30):
        mesh = geometry.isosurface()
        loss = (volume(mesh) - 0.3).square() + 1e-3 * sum(mesh.extras.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert volume(geometry.isosurface()).item() == pytest.approx(0.3, abs=0.02)
    assert geometry.deformation.detach().abs().max() > 0


def test_offsets_stay_within_a_step_of_the_grid():
    geometry = make(**SPHERE)
    before = geometry.isosurface().vertices.detach()
    with torch.no_grad():
        geometry.deformation.fill_(100.0)
        moved = geometry.isosurface().vertices - before
    torch.testing.assert_close(moved, torch.full_like(moved, 2.0 / 24))


def test_fixed_geometry_is_made_once_and_only_features_train():
    geometry = make(**SPHERE, fix_geometry=True)
    names = {name.split(".")[0] for name, _ in geometry.named_parameters()}
    assert names == {"encoding", "feature_network"}
    mesh = geometry.isosurface()
    assert geometry.isosurface().vertices is mesh.vertices and not mesh.vertices.requires_grad
    other = make(shape_init="sphere", shape_init_params=0.3, fix_geometry=True)
    geometry.load_state_dict(other.state_dict())
    assert volume(geometry.isosurface()) < volume(mesh), "a loaded grid is another grid"


def test_features():
    geometry = make(n_feature_dims=5)
    points = torch.rand(2, 7, 3) - 0.5
    out = geometry(points)
    assert out.features.shape == (2, 7, 5) and "sdf" not in out
    assert torch.equal(geometry.export(points)["features"], out.features)
    bare = make(geometry_only=True)
    assert bare.export(points) == {} and "features" not in bare(points)
    assert not hasattr(bare, "encoding")


def test_outliers_are_dropped_where_nothing_trains():
    geometry = make(isosurface_remove_outliers=True, isosurface_outlier_n_faces_threshold=0.2)
    with torch.no_grad():
        ball, crumb = geometry.nodes.norm(dim=1) - 0.4, (geometry.nodes - 0.7).norm(dim=1) - 0.12
        geometry.sdf[:, 0] = torch.minimum(ball, crumb)
    assert component_labels(geometry.isosurface())[1] == 2
    with torch.no_grad():
        assert component_labels(geometry.isosurface())[1] == 1


@pytest.mark.parametrize("threshold", [25.0, "auto"])
def test_from_a_volume(threshold):
    settings = {"isosurface_method": "mc", "isosurface_resolution": 40, "isosurface_threshold": threshold}
    old = BallVolume({**NETWORKS, **settings, "isosurface_outlier_n_faces_threshold": 0.1})
    new = TetrahedraSDFGrid.create_from(old, {"isosurface_resolution": 40, **NETWORKS})
    assert new.sdf.abs().max() <= 1.0
    mesh, wanted = new.isosurface(), old.isosurface()
    assert component_labels(mesh)[1] == 1, "what the volume's own mesh leaves out is left out"
    assert volume(mesh).item() == pytest.approx(volume(wanted).item(), rel=0.02)
    middle = bounding_box(mesh).detach().mean(dim=0)
    torch.testing.assert_close(middle, torch.tensor([0.3, 0.0, 0.0]), atol=0.01, rtol=0)
    inner = (new.isosurface_bbox[1] - new.isosurface_bbox[0]).max()
    assert inner < 1.25, "the grid is around the asset only"
    points = torch.rand(9, 3) - 0.5
    assert torch.equal(new.export(points)["features"], old.export(points)["features"])


class ShiftedSDF(ImplicitSDF):
    """All nodes move as far as they can."""

    def forward_field(self, points):
        return super().forward_field(points)[0], torch.full_like(points, 100.0)


def test_from_an_sdf():
    old = ImplicitSDF({**NETWORKS, "sdf_bias": "sphere", "sdf_bias_params": 0.5, "isosurface_resolution": 32})
    new = TetrahedraSDFGrid.create_from(old, {"isosurface_resolution": 32, **NETWORKS})
    torch.testing.assert_close(new.sdf, old.forward_sdf(new.nodes))
    assert (new.deformation == 0).all()


@pytest.mark.parametrize("deformable", [True, False])
def test_from_moving_nodes_of_another_lattice(deformable):
    cfg = {"sdf_bias": "sphere", "sdf_bias_params": 0.5, "isosurface_deformable_grid": True}
    old = ShiftedSDF({**NETWORKS, **cfg, "isosurface_resolution": 12})
    settings = {"isosurface_resolution": 32, "isosurface_deformable_grid": deformable, **NETWORKS}
    new = TetrahedraSDFGrid.create_from(old, settings)
    with torch.no_grad():
        wanted = bounding_box(old.isosurface())
        assert wanted.mean() > 0.05, "the nodes of the old lattice have moved"
        torch.testing.assert_close(bounding_box(new.isosurface()), wanted, atol=0.02, rtol=0)


@pytest.mark.parametrize("settings", [{"isosurface_deformable_grid": False}, {"radius": 0.8}])
def test_from_a_grid_whose_offsets_or_box_it_cannot_hold(settings):
    old = make(**SPHERE)
    with torch.no_grad():
        old.deformation.fill_(100.0)
        wanted = old.isosurface()
    new = TetrahedraSDFGrid.create_from(old, {"isosurface_resolution": 24, **NETWORKS, **settings})
    with torch.no_grad():
        torch.testing.assert_close(bounding_box(new.isosurface()), bounding_box(wanted), atol=0.02, rtol=0)
    assert (new.isosurface_bbox.abs() <= new.cfg.radius).all()


def test_from_the_same_grid_is_a_copy():
    old = make(**SPHERE)
    with torch.no_grad():
        old.deformation.uniform_(-1, 1)
        old.encoding.encoding.table.uniform_(-1, 1)
    new = TetrahedraSDFGrid.create_from(old, {"isosurface_resolution": 24, **NETWORKS})
    assert torch.equal(new.isosurface().vertices, old.isosurface().vertices)
    points = torch.rand(9, 3) - 0.5
    assert torch.equal(new.export(points)["features"], old.export(points)["features"])
    bare = TetrahedraSDFGrid.create_from(old, {"isosurface_resolution": 24, **NETWORKS}, copy_net=False)
    assert not torch.equal(bare.export(points)["features"], old.export(points)["features"])


@pytest.mark.parametrize("method", METHODS)
def test_from_another_resolution(method):
    old = make(**SPHERE)
    new = TetrahedraSDFGrid.create_from(old, {"isosurface_resolution": 32, **method, **NETWORKS})
    assert volume(new.isosurface()).item() == pytest.approx(volume(old.isosurface()).item(), rel=0.02)


def test_from_a_mesh_with_other_networks_fits_the_features(tmp_path):
    path = tmp_path / "ball.glb"
    write_mesh(ball_mesh(), path)
    old = CustomMesh({"shape_init": f"mesh:{path}", "shape_init_params": 0.5, **NETWORKS})
    with torch.no_grad():
        old.encoding.encoding.table.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    finer = {**NETWORKS["pos_encoding_config"], "n_levels": 6}
    new = [
        TetrahedraSDFGrid.create_from(
            old, {**NETWORKS, "isosurface_resolution": 32, "pos_encoding_config": finer}
        )
        for _ in range(2)
    ]
    assert volume(new[0].isosurface()).item() == pytest.approx(BALL, rel=0.03)
    points = old.isosurface().vertices
    shown, wanted = new[0].export(points)["features"], old.export(points)["features"]
    assert (shown - wanted).square().mean() < 0.05 * wanted.var()
    assert torch.equal(shown, new[1].export(points)["features"]), "seeded"


def test_what_cannot_be_converted_is_refused():
    with pytest.raises(ConfigError, match="geometry_convert_from"):
        TetrahedraSDFGrid.create_from(BaseGeometry(), NETWORKS)
    with pytest.raises(RunFailed, match="empty"):
        TetrahedraSDFGrid.create_from(make(), {"isosurface_resolution": 16, **NETWORKS})


def test_an_open_mesh_has_no_inside(tmp_path):
    path = tmp_path / "open.obj"
    mesh = ball_mesh()
    write_mesh(select_faces(mesh, mesh.vertices[mesh.faces][:, :, 2].amax(dim=1) < 0.3), path)
    cfg = {"shape_init": f"mesh:{path}", "shape_init_params": 0.5}
    with pytest.raises(UserError, match="not closed"):
        make(**cfg)
    with pytest.raises(UserError, match="not closed"):
        TetrahedraSDFGrid.create_from(CustomMesh({**cfg, **NETWORKS}), NETWORKS)


@pytest.mark.parametrize(
    ("cfg", "key"),
    [
        ({"isosurface_resolution": 2}, "isosurface_resolution"),
        ({"isosurface_method": "mc"}, "isosurface_method"),
        ({"isosurface_outlier_n_faces_threshold": -1}, "isosurface_outlier_n_faces_threshold"),
        ({"shape_init": "cube"}, "shape_init"),
        ({"shape_init": "sphere"}, "shape_init_params"),
        ({"shape_init": "sphere", "shape_init_params": -1.0}, "shape_init_params"),
        ({"shape_init": "ellipsoid", "shape_init_params": 0.5}, "shape_init_params"),
        ({"shape_init": "mesh:a.obj", "shape_init_params": 1.0, "shape_init_mesh_up": "up"}, "mesh_up"),
        ({"shape_init": "mesh:a.obj", "shape_init_params": 1.0, "shape_init_mesh_up": "-x"}, "mesh_front"),
        ({"radius": 0.0}, "radius"),
    ],
)
def test_wrong_values_are_refused(cfg, key):
    with pytest.raises(ConfigError, match=key):
        make(**cfg)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="nowhere"):
        make(shape_init=f"mesh:{tmp_path}/nowhere.obj", shape_init_params=1.0)

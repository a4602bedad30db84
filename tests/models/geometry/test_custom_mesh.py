import pytest
import torch

from maquette.core.errors import ConfigError, MissingFileError, UserError
from maquette.io.mesh import write_mesh
from maquette.models.geometry.custom_mesh import CustomMesh
from maquette.models.geometry.tetrahedra_sdf_grid import TetrahedraSDFGrid
from maquette.ops.mesh import Mesh, bounding_box
from maquette.training.weights import check_fits

NETWORKS = {
    "pos_encoding_config": {"n_levels": 3, "log2_hashmap_size": 10, "base_resolution": 4},
    "mlp_network_config": {"n_neurons": 8, "n_hidden_layers": 1},
}
PYRAMID = Mesh(
    torch.tensor([[0.0, 0.0, 4.0], [2.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [-1.0, -1.0, 0.0]]),
    torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]),
)
"""Height 4 up z, its long corner to +x; the mean of its vertices is (0, 0, 1)."""


def saved(tmp_path, name="pyramid.obj", mesh=PYRAMID):
    write_mesh(mesh, tmp_path / name)
    return f"mesh:{tmp_path / name}"


def make(shape_init, **cfg):
    return CustomMesh({"shape_init": shape_init, "shape_init_params": 0.6, **NETWORKS, **cfg})


def corners(mesh):
    """The set of positions, rounded; files may order vertices as they like."""
    return {tuple(round(float(x), 4) for x in point) for point in mesh.vertices[mesh.faces].reshape(-1, 3)}


def expected(rotation=None):
    centred = (PYRAMID.vertices - PYRAMID.vertices.mean(dim=0)) / 3.0 * 0.6
    turned = centred if rotation is None else centred @ torch.tensor(rotation).T
    return corners(Mesh(turned, PYRAMID.faces))


@pytest.mark.parametrize("name", ["pyramid.obj", "pyramid.glb", "pyramid.stl", "pyramid.ply"])
def test_centred_and_scaled_in_the_world_frame(tmp_path, name):
    mesh = make(saved(tmp_path, name)).isosurface()
    if name.endswith("stl"):  # has a vertex for each corner, so its mean is another one
        torch.testing.assert_close(mesh.vertices.abs().max(), torch.tensor(0.6))
    else:
        assert corners(mesh) == expected()


@pytest.mark.parametrize(
    ("up", "front", "rotation"),
    [
        ("+z", "+x", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        ("+y", "+z", [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
        ("-z", "+x", [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]]),
        ("+z", "-y", [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    ],
)
def test_axes_of_the_file(tmp_path, up, front, rotation):
    mesh = make(saved(tmp_path), shape_init_mesh_up=up, shape_init_mesh_front=front).isosurface()
    assert corners(mesh) == expected(rotation)


def test_a_glb_says_its_axes_itself(tmp_path):
    path = saved(tmp_path, "pyramid.glb")
    named = make(path, shape_init_mesh_up="+y", shape_init_mesh_front="+z").isosurface()
    assert corners(named) == corners(make(path).isosurface()) == expected()


def test_only_features_train(tmp_path):
    geometry = make(saved(tmp_path), n_feature_dims=4)
    assert {name.split(".")[0] for name, _ in geometry.named_parameters()} == {"encoding", "feature_network"}
    points = torch.rand(5, 2, 3) - 0.5
    assert geometry(points).features.shape == (5, 2, 4)
    assert torch.equal(geometry.export(points)["features"], geometry(points).features)
    assert not geometry.isosurface().vertices.requires_grad


def test_a_checkpoint_brings_its_mesh(tmp_path):
    old = make(saved(tmp_path))
    new = CustomMesh(NETWORKS)
    new.load_state_dict(old.state_dict())
    assert torch.equal(new.isosurface().vertices, old.isosurface().vertices)
    assert torch.equal(new.isosurface().faces, old.isosurface().faces)


def test_a_checkpoint_brings_the_texture_coordinates_of_its_mesh():
    plain, painted, others = CustomMesh(NETWORKS), CustomMesh(NETWORKS), CustomMesh(NETWORKS)
    uvs = torch.rand(5, 2, generator=torch.Generator().manual_seed(0))
    plain.set_mesh(PYRAMID)
    painted.set_mesh(PYRAMID.replace(uvs=uvs, uv_faces=PYRAMID.faces))
    others.set_mesh(PYRAMID.replace(uvs=uvs[1:].flip(0), uv_faces=PYRAMID.faces))
    new = CustomMesh(NETWORKS)
    for old in (painted, others, painted):
        check_fits(new, old.state_dict(), "x.ckpt")
        new.load_state_dict(old.state_dict())
        assert torch.equal(new.isosurface().uvs, old.isosurface().uvs)
        assert torch.equal(new.isosurface().uv_faces, PYRAMID.faces)
    older = {name: value for name, value in painted.state_dict().items() if not name.startswith("uv_")}
    for state in (plain.state_dict(), older):
        new.load_state_dict(painted.state_dict())
        check_fits(new, state, "x.ckpt")
        new.load_state_dict(state)
        assert new.isosurface().uvs is None, "those of the mesh before are not for this one"


def test_from_another_geometry():
    cfg = {"isosurface_resolution": 16, "shape_init": "sphere", "shape_init_params": 0.5, **NETWORKS}
    old = TetrahedraSDFGrid(cfg)
    new = CustomMesh.create_from(old, NETWORKS)
    with torch.no_grad():
        wanted = old.isosurface()
    assert torch.equal(new.isosurface().vertices, wanted.vertices)
    points = wanted.vertices[:20]
    assert torch.equal(new.export(points)["features"], old.export(points)["features"])


def test_an_open_mesh_is_fine(tmp_path):
    mesh = make(saved(tmp_path, mesh=PYRAMID.replace(faces=PYRAMID.faces[:3]))).isosurface()
    assert mesh.n_faces == 3 and bounding_box(mesh).abs().max() == pytest.approx(0.6)


def test_no_mesh_yet():
    with pytest.raises(ConfigError, match="mesh:PATH"):
        CustomMesh(NETWORKS).isosurface()


@pytest.mark.parametrize(
    ("mesh", "words"),
    [
        (PYRAMID.replace(faces=PYRAMID.faces[:0]), "faces: 0"),
        (PYRAMID.replace(vertices=PYRAMID.vertices * float("nan")), "finite"),
    ],
)
def test_what_is_no_mesh_is_refused(mesh, words):
    with pytest.raises(UserError, match=words):
        CustomMesh(NETWORKS).set_mesh(mesh)


def test_a_file_with_positions_that_are_not_finite(tmp_path):
    path = tmp_path / "bad.obj"
    path.write_text("v 0 0 0\nv nan 1 0\nv 0 1 1\nv 1 0 0\nf 1 2 3\nf 1 3 4\n")
    with pytest.raises(UserError, match=r"bad\.obj"):
        make(f"mesh:{path}")


def test_all_points_in_one_place(tmp_path):
    path = tmp_path / "point.obj"
    path.write_text("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n")
    with pytest.raises(UserError, match=r"point\.obj"):
        make(f"mesh:{path}")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="nowhere"):
        make(f"mesh:{tmp_path}/nowhere.glb")


@pytest.mark.parametrize("shape_init", ["sphere", "mesh:", "pyramid.obj"])
def test_only_mesh_files(shape_init):
    with pytest.raises(ConfigError, match="shape_init"):
        make(shape_init)

import math
from dataclasses import dataclass
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import trimesh

from maquette.core.errors import ConfigError, UserError
from maquette.models.geometry import field_fit
from maquette.models.geometry.base import BaseExplicitGeometry
from maquette.models.geometry.implicit_sdf import ImplicitSDF
from maquette.models.geometry.implicit_volume import ImplicitVolume
from maquette.models.networks import init_parameters
from maquette.ops.mesh import Mesh, edges, volume

GRID = {
    "otype": "HashGrid",
    "n_levels": 4,
    "n_features_per_level": 2,
    "log2_hashmap_size": 12,
    "base_resolution": 4,
    "per_level_scale": 1.5,
}
NETWORK = {"n_neurons": 16, "n_hidden_layers": 1}
SPHERE = {"sdf_bias": "sphere", "sdf_bias_params": 0.5}


@pytest.fixture(autouse=True)
def _small_fits(monkeypatch):
    monkeypatch.setattr(field_fit, "POINTS", 1024)
    monkeypatch.setattr(field_fit, "POOL", 2**14)


def make(**cfg):
    return ImplicitSDF({"pos_encoding_config": GRID, "mlp_network_config": NETWORK, **cfg})


def points(n=64, scale=0.9, seed=0):
    return (torch.rand(n, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * scale


def stirred(**cfg):
    """A field whose table is not almost zero."""
    geometry = make(**cfg)
    with torch.no_grad():
        geometry.encoding.encoding.table.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    return geometry


class Ball(BaseExplicitGeometry):
    """Something that can become a mesh, with features of its own."""

    @dataclass(kw_only=True)
    class Config(BaseExplicitGeometry.Config):
        n_feature_dims: int = 3

    def isosurface(self):
        ball = trimesh.creation.icosphere(subdivisions=3, radius=0.6)
        return Mesh(torch.tensor(ball.vertices).float(), torch.tensor(ball.faces))

    def export(self, points, **kwargs):
        return {"features": torch.full_like(points, 0.25)}


def test_fields_have_their_shapes_and_leading_dimensions():
    out = make(n_feature_dims=5)(points(24).reshape(2, 3, 4, 3), output_normal=True)
    assert out.sdf.shape == (2, 3, 4, 1)
    assert out.features.shape == (2, 3, 4, 5)
    assert out.normal.shape == out.shading_normal.shape == out["sdf_grad"].shape == (2, 3, 4, 3)
    assert "density" not in out


@pytest.mark.parametrize(
    ("bias", "params", "expected"),
    [
        ("sphere", 0.5, lambda x: x.norm(dim=-1) - 0.5),
        ("ellipsoid", [0.5, 0.3, 0.8], lambda x: (x / torch.tensor([0.5, 0.3, 0.8])).norm(dim=-1) - 1),
        (0.25, None, lambda x: torch.full((len(x),), 0.25)),
    ],
)
def test_the_field_starts_as_its_bias(bias, params, expected):
    x = points()
    sdf = make(sdf_bias=bias, sdf_bias_params=params).forward_sdf(x)[:, 0]
    torch.testing.assert_close(sdf, expected(x), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("kind", ["analytic", "finite_difference", "finite_difference_laplacian"])
def test_the_gradient_of_a_sphere_has_length_one_and_points_outwards(kind):
    out = make(normal_type=kind, **SPHERE)(points(), output_normal=True)
    outwards = F.normalize(points(), dim=-1)
    torch.testing.assert_close(out["sdf_grad"], outwards, atol=0.05, rtol=0)
    torch.testing.assert_close(out.normal, outwards, atol=0.05, rtol=0)


def test_analytic_and_central_gradients_agree_on_a_learned_field():
    x = points(64).double().float()
    analytic = stirred(normal_type="analytic", **SPHERE)(x, output_normal=True)["sdf_grad"]
    central = stirred(normal_type="finite_difference_laplacian", finite_difference_normal_eps=1e-3, **SPHERE)(
        x, output_normal=True
    )["sdf_grad"]
    close = (analytic - central).norm(dim=-1) < 0.02 * central.norm(dim=-1)
    assert close.float().mean() > 0.8, "borders of cells and kinks of the network may differ"


@pytest.mark.parametrize("kind", ["analytic", "finite_difference", "pred"])
def test_normals_train_the_field(kind):
    geometry = make(normal_type=kind, **SPHERE)
    out = geometry(points(), output_normal=True)
    (out.normal * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert geometry.encoding.encoding.table.grad.abs().sum() > 0
    assert ("sdf_grad" in out) == (kind != "pred")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_analytic_normals_in_evaluation_carry_no_graph_and_leave_the_mode(mode):
    geometry = make(normal_type="analytic", **SPHERE).eval()
    with mode():
        out = geometry(points(), output_normal=True)
        assert torch.is_grad_enabled() is False
    assert not any(value.requires_grad for value in out.values())
    assert torch.is_grad_enabled() is True


def test_no_normals_where_there_are_none():
    out = make(normal_type=None)(points(), output_normal=True)
    assert out.normal is None and "sdf_grad" not in out


def test_progressive_differences_are_a_cell_of_the_finest_active_level():
    bands = {
        **GRID,
        "otype": "ProgressiveBandHashGrid",
        "start_level": 1,
        "start_step": 0,
        "update_steps": 10,
    }
    geometry = make(
        pos_encoding_config={**GRID, **bands}, finite_difference_normal_eps="progressive", radius=2.0
    )
    steps = []
    for step in (0, 10, 25, 1000):
        geometry.do_update_step(0, step)
        steps.append(geometry.finite_difference_normal_eps)
    assert steps == pytest.approx([4.0 / (4 * 1.5**level) for level in (0, 1, 2, 3)])


@pytest.mark.parametrize("method", ["mc", "mt"])
def test_isosurface_of_the_sphere(method):
    geometry = make(isosurface_resolution=40, isosurface_method=method, **SPHERE)
    with torch.no_grad():
        mesh = geometry.isosurface()
    assert (edges(mesh)[1] == 2).all(), "watertight"
    assert volume(mesh).item() == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.02)


def test_grid_nodes_are_given_offsets_where_they_may_move():
    assert make().forward_field(points())[1] is None
    field, offsets = make(isosurface_deformable_grid=True).forward_field(points())
    assert field.shape == (64, 1) and offsets.shape == (64, 3)


@pytest.mark.parametrize(
    ("shape", "params", "expected"),
    [
        ("sphere", 0.5, lambda x: x.norm(dim=-1) - 0.5),
        ("ellipsoid", [0.5, 0.4, 0.7], lambda x: (x / torch.tensor([0.5, 0.4, 0.7])).norm(dim=-1) - 1),
    ],
)
def test_the_shape_to_begin_with_is_fitted(shape, params, expected):
    geometry = make(shape_init=shape, shape_init_params=params)
    geometry.initialize_shape(seed=3)
    x = points(1000, 1.0)
    with torch.no_grad():
        error = (geometry.forward_sdf(x)[:, 0] - expected(x)).abs()
    assert error.mean() < 0.03


def test_a_mesh_is_a_shape_to_begin_with(tmp_path):
    path = tmp_path / "box.obj"
    trimesh.creation.box(extents=(2, 1, 1)).export(path)
    geometry = make(shape_init=f"mesh:{path}", shape_init_params=0.6)
    geometry.initialize_shape()
    inside, outside = torch.tensor([[0.4, 0.1, 0.1]]), torch.tensor([[0.1, 0.45, 0.1]])
    with torch.no_grad():
        assert geometry.forward_sdf(inside).item() < -0.1 and geometry.forward_sdf(outside).item() > 0.1


def test_the_first_shape_depends_on_the_seed_alone(monkeypatch):
    monkeypatch.setattr(field_fit, "fit", partial(field_fit.fit, steps=15))
    shapes = []
    for seed, noise in ((1, 0), (1, 7), (2, 0)):
        geometry = make(shape_init="sphere", shape_init_params=0.5)
        init_parameters(geometry, seed=5, prefix="geometry")
        torch.manual_seed(noise)
        geometry.initialize_shape(seed)
        shapes.append(geometry.encoding.encoding.table.detach().clone())
    assert torch.equal(shapes[0], shapes[1]) and not torch.equal(shapes[0], shapes[2])


def test_without_a_shape_nothing_is_fitted(monkeypatch):
    monkeypatch.setattr(field_fit, "fit", None)
    make().initialize_shape()


@pytest.mark.parametrize("grad", [True, False])
def test_a_mesh_becomes_a_signed_distance_with_its_features(grad):
    cfg = {"pos_encoding_config": GRID, "mlp_network_config": NETWORK}
    with torch.set_grad_enabled(grad):
        fitted = ImplicitSDF.create_from(Ball({}), cfg)
    x = points(1000)
    with torch.no_grad():
        error = (fitted.forward_sdf(x)[:, 0] - (x.norm(dim=-1) - 0.6)).abs()
        on_surface = 0.6 * F.normalize(x, dim=-1)
        features = fitted.export(on_surface)["features"]
    assert error.mean() < 0.02 and error[error.argsort()[:900]].max() < 0.05
    assert fitted.forward_sdf(on_surface).abs().mean() < 0.01
    torch.testing.assert_close(features, torch.full_like(features, 0.25), atol=0.05, rtol=0)


def test_twelve_triangles_are_as_good_as_many():
    class Box(Ball):
        def isosurface(self):
            box = trimesh.creation.box(extents=(1.0, 0.8, 0.6))
            return Mesh(torch.tensor(box.vertices).float(), torch.tensor(box.faces))

    fitted = ImplicitSDF.create_from(Box({}), {"pos_encoding_config": GRID, "mlp_network_config": NETWORK})
    faces = torch.tensor([[0.5, 0.1, 0.1], [-0.5, 0.2, 0.0], [0.1, 0.4, 0.1], [0.0, 0.1, -0.3]])
    with torch.no_grad():
        assert fitted.forward_sdf(faces).abs().max() < 0.03
        assert fitted.forward_sdf(torch.zeros(1, 3)).item() < -0.2


def test_conversion_copies_the_same_field():
    source = stirred(**SPHERE)
    init_parameters(source, seed=9, prefix="geometry")
    cfg = {"pos_encoding_config": GRID, "mlp_network_config": NETWORK, **SPHERE}
    copy = ImplicitSDF.create_from(source, cfg)
    assert torch.equal(copy.forward_sdf(points()), source.forward_sdf(points()))
    assert torch.equal(copy.export(points())["features"], source(points()).features)
    bare = ImplicitSDF.create_from(source, cfg, copy_net=False)
    assert torch.equal(bare.forward_sdf(points()), source.forward_sdf(points()))
    assert not torch.equal(bare.export(points())["features"], source(points()).features)


def test_a_volume_becomes_a_signed_distance():
    source = ImplicitVolume(
        {
            "pos_encoding_config": GRID,
            "density_blob_scale": 20.0,
            "isosurface_threshold": 1.0,
            "isosurface_resolution": 32,
        }
    )
    cfg = {"pos_encoding_config": GRID, "mlp_network_config": NETWORK}
    fitted = ImplicitSDF.create_from(source, cfg)
    surface = source.isosurface().vertices
    with torch.no_grad():
        assert fitted.forward_sdf(surface).abs().mean() < 0.02


def test_an_open_mesh_has_no_signed_distance():
    class Open(Ball):
        def isosurface(self):
            mesh = super().isosurface()
            return mesh.replace(faces=mesh.faces[:-50])

    with pytest.raises(UserError, match="not closed"):
        ImplicitSDF.create_from(Open({}))


@pytest.mark.parametrize(
    ("cfg", "key"),
    [
        ({"sdf_bias": "cube"}, "sdf_bias"),
        ({"sdf_bias": "sphere"}, "sdf_bias_params"),
        ({"normal_type": "exact"}, "normal_type"),
        ({"shape_init": "cube"}, "shape_init"),
        ({"shape_init": "ellipsoid", "shape_init_params": 0.5}, "shape_init_params"),
        ({"finite_difference_normal_eps": "progressive"}, "finite_difference_normal_eps"),
        ({"finite_difference_normal_eps": -0.1}, "finite_difference_normal_eps"),
        ({"radius": 0.0}, "radius"),
    ],
)
def test_wrong_values_are_refused(cfg, key):
    with pytest.raises(ConfigError, match=key):
        make(**cfg)

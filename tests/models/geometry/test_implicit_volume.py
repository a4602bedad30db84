import math

import pytest
import torch
import torch.nn.functional as F

from maquette.core.errors import ConfigError, RunFailed
from maquette.models.geometry.implicit_volume import ImplicitVolume
from maquette.models.networks import init_parameters
from maquette.ops.mesh import edges, volume

SMALL_GRID = {
    "otype": "HashGrid",
    "n_levels": 3,
    "n_features_per_level": 2,
    "log2_hashmap_size": 10,
    "base_resolution": 4,
    "per_level_scale": 1.5,
}
NETWORK = {"n_neurons": 16, "n_hidden_layers": 1}
CUBES = {"isosurface_method": "mc"}


def make(**cfg):
    cfg = {**CUBES, "pos_encoding_config": SMALL_GRID, "mlp_network_config": NETWORK, **cfg}
    return ImplicitVolume(cfg)


def points(n=64, scale=0.9):
    return (torch.rand(n, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1) * scale


class Ball(ImplicitVolume):
    """Density 50 inside a ball of radius 0.5 around (0.2, 0, 0), with a soft rim."""

    center = (0.2, 0.0, 0.0)

    def forward_density(self, points):
        distance = (points - points.new_tensor(self.center)).norm(dim=-1, keepdim=True)
        return 50.0 * torch.sigmoid((0.5 - distance) * 60.0)


def test_fields_have_their_shapes_and_leading_dimensions():
    out = make(n_feature_dims=5)(points(24).reshape(2, 3, 4, 3), output_normal=True)
    assert out.density.shape == (2, 3, 4, 1)
    assert out.features.shape == (2, 3, 4, 5)
    assert out.normal.shape == out.shading_normal.shape == (2, 3, 4, 3)
    assert "sdf" not in out


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        ("blob_magic3d", lambda x: 10 * (1 - x.norm(dim=-1, keepdim=True) / 0.5)),
        ("blob_dreamfusion", lambda x: 10 * torch.exp(-0.5 * x.square().sum(-1, keepdim=True) / 0.25)),
        (-2.5, lambda x: torch.full((len(x), 1), -2.5)),
    ],
)
def test_density_starts_as_its_bias(bias, expected):
    geometry = make(density_bias=bias)
    torch.testing.assert_close(
        geometry.forward_density(points()), F.softplus(expected(points())), atol=2e-3, rtol=2e-3
    )


@pytest.mark.parametrize("kind", ["analytic", "finite_difference", "finite_difference_laplacian"])
def test_normals_of_a_blob_point_outwards(kind):
    geometry, x = make(normal_type=kind), points()
    x = x[x.norm(dim=-1) > 0.2]
    normal = geometry(x, output_normal=True).normal
    torch.testing.assert_close(normal.norm(dim=-1), torch.ones(len(x)))
    aligned = (normal * F.normalize(x, dim=-1)).sum(dim=-1)
    assert aligned.min() > (0.99 if kind != "finite_difference" else 0.95)


def test_analytic_normals_are_the_gradient_of_a_trained_field():
    geometry = make(normal_type="analytic", density_activation="exp", density_bias=0.0)
    with torch.no_grad():
        geometry.encoding.encoding.table.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    x = points(16).double().float()
    normal = geometry(x, output_normal=True).normal
    eps = 1e-3
    steps = eps * torch.eye(3)
    ahead, behind = geometry.forward_density(x[:, None] + steps), geometry.forward_density(x[:, None] - steps)
    slope = -F.normalize((ahead - behind)[..., 0], dim=-1)
    assert ((normal * slope).sum(-1) > 0.99).float().mean() > 0.9, "cells' borders may differ"


@pytest.mark.parametrize("kind", ["analytic", "finite_difference", "pred"])
def test_normals_train_the_field(kind):
    geometry = make(normal_type=kind)
    out = geometry(points(), output_normal=True)
    (out.normal * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert geometry.encoding.encoding.table.grad.abs().sum() > 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_analytic_normals_in_evaluation_carry_no_graph(mode):
    geometry = make(normal_type="analytic").eval()
    with mode():
        out = geometry(points(), output_normal=True)
        assert torch.is_grad_enabled() is False
    assert not any(value.requires_grad for value in out.values())
    trained = geometry.train()(points(), output_normal=True)
    torch.testing.assert_close(out.normal, trained.normal.detach())


def test_no_normals_where_there_are_none():
    assert make(normal_type=None)(points(), output_normal=True).normal is None


def test_blob_is_annealed():
    anneal = {"min_anneal_step": 0, "max_anneal_step": 100, "start_val": 0.2, "end_val": 0.6}
    geometry = make(anneal_density_blob_std_config=anneal)
    widths = []
    for step in (0, 50, 1000):
        geometry.do_update_step(0, step)
        widths.append(geometry.density_blob_std)
    assert widths == pytest.approx([0.2, 0.4, 0.6])


@pytest.mark.parametrize("coarse_to_fine", [True, False])
def test_isosurface_of_a_ball(coarse_to_fine):
    geometry = Ball(
        {
            **CUBES,
            "pos_encoding_config": SMALL_GRID,
            "isosurface_resolution": 48,
            "isosurface_coarse_to_fine": coarse_to_fine,
        }
    )
    mesh = geometry.isosurface()
    assert (edges(mesh)[1] == 2).all(), "watertight"
    assert volume(mesh).item() == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.01)
    torch.testing.assert_close(mesh.vertices.mean(dim=0), torch.tensor([0.2, 0.0, 0.0]), atol=0.01, rtol=0)
    assert mesh.extras["isosurface_threshold"] == 25.0


def test_the_second_pass_looks_only_around_the_surface_and_finds_the_same(monkeypatch):
    class Counting(ImplicitVolume):
        asked = 0

        def forward_density(self, points):
            self.asked += len(points)
            return super().forward_density(points)

    cfg = {**CUBES, "isosurface_resolution": 40, "isosurface_threshold": "auto"}
    geometry = Counting({"pos_encoding_config": SMALL_GRID, **cfg})
    with torch.no_grad():
        geometry.encoding.encoding.table.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(0))
    quick = geometry.isosurface()
    assert geometry.asked < 1.7 * 40**3
    monkeypatch.setattr(Counting, "_refined_field", lambda self, coarse, box, threshold: self.grid_field(box))
    full = geometry.isosurface()
    assert torch.equal(quick.vertices, full.vertices) and torch.equal(quick.faces, full.faces)


def test_auto_threshold_takes_the_rim_of_a_ball():
    geometry = Ball(
        {"pos_encoding_config": SMALL_GRID, "isosurface_resolution": 48, "isosurface_threshold": "auto"}
    )
    mesh = geometry.isosurface()
    assert 0.0 < mesh.extras["isosurface_threshold"] < 50.0
    radius = (volume(mesh).item() * 3 / (4 * math.pi)) ** (1 / 3)
    outline = 0.555  # where a line through the soft rim is half opaque
    assert 0.49 < radius < outline


def test_a_density_that_is_no_number_is_told_from_an_empty_one():
    cfg = {"pos_encoding_config": SMALL_GRID, "isosurface_resolution": 16, "isosurface_threshold": "auto"}

    class Broken(Ball):
        def forward_density(self, points):
            return super().forward_density(points).where(points[..., :1] > 0, math.nan)

    class Empty(Ball):
        def forward_density(self, points):
            return 0.0 * super().forward_density(points)

    with pytest.raises(RunFailed, match=r"not numbers\.\n  share of them: 50.0%\n.*lower learning rate"):
        Broken(cfg).isosurface()
    with pytest.raises(RunFailed, match=r"empty.*\n.*\n.*\n.*lambda_sparsity"):
        Empty(cfg).isosurface()


def test_small_pieces_are_dropped():
    class BallAndCrumb(Ball):
        def forward_density(self, points):
            crumb = (points - points.new_tensor([-0.8, -0.8, -0.8])).norm(dim=-1, keepdim=True) < 0.09
            return super().forward_density(points) + 50.0 * crumb

    cfg = {**CUBES, "pos_encoding_config": SMALL_GRID, "isosurface_resolution": 40}
    cfg["isosurface_coarse_to_fine"] = False
    kept = BallAndCrumb({**cfg, "isosurface_remove_outliers": False}).isosurface()
    cleaned = BallAndCrumb({**cfg, "isosurface_outlier_n_faces_threshold": 0.1}).isosurface()
    by_count = BallAndCrumb({**cfg, "isosurface_outlier_n_faces_threshold": 500}).isosurface()
    assert kept.vertices[:, 0].min() < -0.7 < -0.4 < cleaned.vertices[:, 0].min()
    assert torch.equal(by_count.vertices, cleaned.vertices)


def test_hidden_cavities_are_closed():
    class Hollow(Ball):
        def forward_density(self, points):
            shell = (points - points.new_tensor(self.center)).norm(dim=-1, keepdim=True) > 0.3
            return super().forward_density(points) * shell

    cfg = {**CUBES, "pos_encoding_config": SMALL_GRID, "isosurface_resolution": 40}
    mesh = Hollow(cfg).isosurface()
    assert volume(mesh).item() == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.01)
    hollow = Hollow({**cfg, "isosurface_remove_outliers": False}).isosurface()
    assert volume(hollow).item() == pytest.approx(4 / 3 * math.pi * (0.5**3 - 0.3**3), rel=0.02)


def test_an_empty_surface_says_what_the_field_is_like():
    geometry = make(isosurface_threshold=1000.0, isosurface_resolution=16)
    with pytest.raises(RunFailed, match="isosurface_threshold: 1000") as caught:
        geometry.isosurface()
    assert "auto" in caught.value.hint


def test_an_empty_volume_is_named():
    geometry = make(isosurface_threshold="auto", isosurface_resolution=16, density_bias=-30.0)
    with pytest.raises(RunFailed, match="empty"):
        geometry.isosurface()


def test_conversion_copies_the_field():
    source = make()
    init_parameters(source, seed=9, prefix="geometry")
    copy = ImplicitVolume.create_from(
        source, {"pos_encoding_config": SMALL_GRID, "mlp_network_config": NETWORK}
    )
    assert torch.equal(copy.forward_density(points()), source.forward_density(points()))
    assert torch.equal(copy.export(points())["features"], source(points()).features)


@pytest.mark.parametrize(
    ("cfg", "key"),
    [
        ({"density_bias": "blob"}, "density_bias"),
        ({"normal_type": "exact"}, "normal_type"),
        ({"radius": 0.0}, "radius"),
        ({"isosurface_threshold": "high"}, "isosurface_threshold"),
        ({"isosurface_method": "dmtet"}, "isosurface_method"),
        ({"isosurface_chunk": -5}, "isosurface_chunk"),
        ({"density_blob_std": 0.0}, "density_blob_std"),
        ({"mlp_network_config": {"n_neurons": 0}}, "n_neurons"),
        ({"mlp_network_config": {"n_hidden_layers": -1}}, "n_hidden_layers"),
        ({"isosurface_deformable_grid": True}, "isosurface_deformable_grid"),
        ({"isosurface_outlier_n_faces_threshold": "few"}, "isosurface_outlier_n_faces_threshold"),
        ({"anneal_density_blob_std_config": {"start": 1}}, "anneal_density_blob_std_config"),
    ],
)
def test_wrong_values_are_refused(cfg, key):
    with pytest.raises(ConfigError, match=key):
        make(**cfg)

import math
from pathlib import Path

import pytest
import torch

from maquette.core.errors import ConfigError, MissingFileError, RunFailed, UserError
from maquette.io.mesh import write_mesh
from maquette.io.ply import write_points
from maquette.io.splats import write_splats
from maquette.models.geometry.base import BaseGeometry
from maquette.models.geometry.gaussian_init import widths
from maquette.models.geometry.gaussian_splatting import GaussianSplatting
from maquette.models.materials.no_material import NoMaterial
from maquette.models.networks.init import init_parameters
from maquette.ops.gaussians import FLAT, Gaussians, colors_to_sh, peak_densities
from maquette.ops.mesh import Mesh, bounding_box
from maquette.ops.point_cloud import PointCloud


def round_one(scale: float = 0.2, opacity: float = 0.9) -> Gaussians:
    return Gaussians(
        means=torch.tensor([[0.1, 0.0, 0.0]]),
        rotations=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        scales=torch.full((1, 3), scale),
        opacities=torch.tensor([opacity]),
        sh=colors_to_sh(torch.tensor([[[0.8, 0.2, 0.4]]])),
    )


def holding(gaussians: Gaussians, **options: object) -> GaussianSplatting:
    made = GaussianSplatting({"isosurface_resolution": 32, "isosurface_blur": 0.0, **options})
    made.set_rows(gaussians)
    return made


def square(z: float = 0.0) -> Mesh:
    vertices = torch.tensor([[-0.5, -0.5, z], [0.5, -0.5, z], [0.5, 0.5, z], [-0.5, 0.5, z]])
    colors = torch.tensor([[1.0, 0.0, 0.0]]).expand(4, 3)
    return Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]), vertex_colors=colors)


class Sheet(BaseGeometry):
    """A geometry with a surface, whose features say which way is up."""

    def isosurface(self) -> Mesh:
        return square().replace(vertex_colors=None)

    def export(self, points: torch.Tensor, **kwargs: object) -> dict[str, torch.Tensor]:
        return {"features": points.new_tensor([2.0, 0.0, -2.0]).expand(len(points), 3)}


def test_initial_ball_is_filled_evenly() -> None:
    made = GaussianSplatting({"init_num_pts": 2000, "pc_init_radius": 0.5, "opacity_init": 0.3})
    gaussians = made.gaussians()
    radius = gaussians.means.norm(dim=-1)
    assert bool((radius <= 0.5001).all())
    assert float((radius < 0.25).float().mean()) == pytest.approx(1 / 8, abs=0.03)
    assert gaussians.means.mean(dim=0).abs().max() < 0.02
    torch.testing.assert_close(gaussians.opacities, torch.full((2000,), 0.3))
    torch.testing.assert_close(gaussians.colors, torch.full((2000, 3), 0.5), rtol=0.0, atol=2e-3)
    volume = 4 / 3 * math.pi * 0.5**3 / 2000
    assert gaussians.scales.mean().item() == pytest.approx(volume ** (1 / 3), rel=0.3)


def test_initial_ball_depends_on_the_generator_only() -> None:
    def ball(seed: int) -> torch.Tensor:
        made = GaussianSplatting({"init_num_pts": 5})
        init_parameters(made, seed, "geometry")
        return made._xyz.detach()

    assert torch.equal(ball(1), ball(1)) and not torch.equal(ball(1), ball(2))


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_degree_of_the_colors(degree: int) -> None:
    made = GaussianSplatting({"init_num_pts": 5, "sh_degree": degree})
    assert made.gaussians().sh.shape == (5, (degree + 1) ** 2, 3)
    assert made._features_rest.shape == (5, (degree + 1) ** 2 - 1, 3)


def test_round_clipped_and_with_normals() -> None:
    made = GaussianSplatting(
        {"init_num_pts": 5, "sphere": True, "color_clip": [0, 2.0, 1.0, 10], "pred_normal": True}
    )
    with torch.no_grad():
        made._scaling[:, 0] += 3.0
        made._features_dc.fill_(5.0)
    gaussians = made.gaussians()
    assert torch.equal(gaussians.scales[:, 0], gaussians.scales[:, 2]) and gaussians.sh.max() == 2.0
    made.update_step(0, 10)
    assert made.gaussians().sh.max() == 1.0
    torch.testing.assert_close(made.predicted_normals().norm(dim=-1), torch.ones(5))
    assert GaussianSplatting().predicted_normals() is None


def test_rates_follow_their_schedules_in_the_logarithm() -> None:
    made = GaussianSplatting({"position_lr": [0, 0.01, 0.0001, 100], "feature_lr": 0.02})
    assert made.learning_rates(0, 0)["_xyz"] == pytest.approx(0.01)
    assert made.learning_rates(0, 50)["_xyz"] == pytest.approx(0.001)
    assert made.learning_rates(0, 500)["_xyz"] == pytest.approx(0.0001)
    assert made.learning_rates(0, 9)["_features_rest"] == pytest.approx(0.001)
    assert set(made.learning_rates(0, 0)) == set(made.row_parameters)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"strategy": "magic"}, "strategy"),
        ({"sh_degree": 4}, "sh_degree"),
        ({"n_feature_dims": 8}, "n_feature_dims"),
        ({"isosurface_deformable_grid": True}, "isosurface_deformable_grid"),
        ({"opacity_init": 1.0}, "opacity_init"),
        ({"pc_init_radius": 0.0}, "pc_init_radius"),
        ({"init_num_pts": 0}, "init_num_pts"),
        ({"densification_interval": 0}, "densification_interval"),
        ({"position_lr": [0, 0.1, -0.1, 9]}, "position_lr"),
        ({"isosurface_blur": -1.0}, "isosurface_blur"),
        ({"geometry_convert_from": "shap-e:a chair"}, "geometry_convert_from"),
    ],
)
def test_values_that_cannot_be_are_refused(options: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"system\.geometry\.{key}"):
        GaussianSplatting(options)


# beginnings -------------------------------------------------------------------------------------------------


def test_begins_with_points(tmp_path: Path) -> None:
    cloud = PointCloud(torch.rand(30, 3), torch.rand(30, 3))
    made = GaussianSplatting({"geometry_convert_from": str(write_points(cloud, tmp_path / "points.ply"))})
    init_parameters(made, 0)
    gaussians = made.gaussians()
    assert torch.equal(gaussians.means, cloud.points)
    torch.testing.assert_close(gaussians.colors, cloud.colors, rtol=0.0, atol=1 / 500)
    torch.testing.assert_close(gaussians.opacities, torch.full((30,), 0.1))


def test_widths_of_many_points_are_about_the_spacing(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.rand(2000, 3) * torch.tensor([1.0, 1.0, 0.01])
    exact = widths(points)
    monkeypatch.setattr("maquette.models.geometry.gaussian_init.MOST_EXACT", 1000)
    ratio = widths(points) / exact
    assert 1.0 < ratio.median() < 1.5 and ratio.min() > 0.999, "others are at least as far as the nearest"


def test_begins_with_splats_or_their_points_alone(tmp_path: Path) -> None:
    start = GaussianSplatting({"init_num_pts": 9, "sh_degree": 1, "opacity_init": 0.7}).gaussians()
    path = str(write_splats(start, tmp_path / "splats.ply"))
    taken = GaussianSplatting({"geometry_convert_from": path, "sh_degree": 2}).gaussians()
    torch.testing.assert_close(taken.opacities, start.opacities)
    torch.testing.assert_close(taken.scales, start.scales)
    assert (
        taken.sh.shape[1] == 9 and torch.equal(taken.sh[:, :4], start.sh) and taken.sh[:, 4:].abs().sum() == 0
    )
    alone = GaussianSplatting({"geometry_convert_from": path, "load_ply_only_vertex": True}).gaussians()
    torch.testing.assert_close(alone.opacities, torch.full((9,), 0.1))
    assert torch.equal(alone.means, start.means) and alone.sh.shape[1] == 1
    assert GaussianSplatting({"geometry_convert_from": path, "max_num": 4}).n == 4


@pytest.mark.parametrize("suffix", ["ply", "glb", "obj"])
def test_begins_with_the_surface_of_a_mesh(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"square.{suffix}"
    write_mesh(square(z=0.25), path)
    gaussians = GaussianSplatting({"geometry_convert_from": str(path), "init_num_pts": 50}).gaussians()
    assert gaussians.n == 50
    torch.testing.assert_close(gaussians.means[:, 2], torch.full((50,), 0.25))
    torch.testing.assert_close(
        gaussians.colors, torch.tensor([[1.0, 0.0, 0.0]]).expand(50, 3), atol=1e-2, rtol=0.0
    )


def test_begins_with_a_checkpoint(tmp_path: Path) -> None:
    start = GaussianSplatting({"init_num_pts": 7, "opacity_init": 0.6})
    state = {f"geometry.{name}": value for name, value in start.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "run.ckpt")
    taken = GaussianSplatting({"geometry_convert_from": str(tmp_path / "run.ckpt")}).gaussians()
    torch.testing.assert_close(taken.opacities, start.gaussians().opacities)
    torch.save({"state_dict": {"geometry.grid": torch.zeros(3)}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="no cloud of Gaussians"):
        GaussianSplatting({"geometry_convert_from": str(tmp_path / "other.ckpt")})
    with pytest.raises(MissingFileError):
        GaussianSplatting({"geometry_convert_from": str(tmp_path / "gone.ply")})


def test_is_created_from_another_geometry() -> None:
    made = GaussianSplatting.create_from(Sheet(), {"init_num_pts": 40})
    init_parameters(made, 0)
    gaussians = made.gaussians()
    assert gaussians.n == 40 and gaussians.means[:, 2].abs().max() < 1e-6
    expected = torch.sigmoid(torch.tensor([2.0, 0.0, -2.0])).expand(40, 3)
    torch.testing.assert_close(gaussians.colors, expected)
    shown = NoMaterial({"color_activation": "none"})
    painted = GaussianSplatting.create_from(Sheet(), {"init_num_pts": 4}, material=shown).gaussians()
    torch.testing.assert_close(painted.colors, torch.tensor([[1.0, 0.0, 0.0]]).expand(4, 3))


def test_is_created_from_another_cloud() -> None:
    other = GaussianSplatting({"init_num_pts": 6, "opacity_init": 0.4})
    made = GaussianSplatting.create_from(other, {"init_num_pts": 50})
    torch.testing.assert_close(made.gaussians().means, other.gaussians().means)
    torch.testing.assert_close(made.gaussians().opacities, other.gaussians().opacities)
    few = GaussianSplatting.create_from(other, {"max_num": 4, "sh_degree": 1}).gaussians()
    assert few.n == 4 and few.sh_degree == 1


def test_is_created_where_the_other_one_is() -> None:
    made = GaussianSplatting.create_from(GaussianSplatting({"init_num_pts": 6}).to("meta"))
    assert {one.device.type for one in made.state_dict().values()} == {"meta"}


def test_takes_the_number_of_rows_of_a_checkpoint() -> None:
    stored = GaussianSplatting({"init_num_pts": 9})
    stored.gradient_sum += 2.0
    made = GaussianSplatting({"init_num_pts": 4})
    identity = id(made._xyz)
    made.load_state_dict(stored.state_dict())
    assert made.n == 9 and id(made._xyz) == identity and torch.equal(made.gradient_sum, stored.gradient_sum)
    old = {name: value for name, value in stored.state_dict().items() if name.startswith("_")}
    made = GaussianSplatting({"init_num_pts": 4})
    made.load_state_dict(old, strict=False)
    assert made.n == 9 and torch.equal(made.gradient_sum, torch.zeros(9))


# the field --------------------------------------------------------------------------------------------------


def test_surface_of_a_round_gaussian_is_a_sphere() -> None:
    one = round_one()
    level = 0.5 * float(peak_densities(one.opacities, one.scales)[0])
    mesh = holding(one, isosurface_threshold=level).isosurface()
    distance = (mesh.vertices - one.means).norm(dim=-1)
    torch.testing.assert_close(
        distance, torch.full_like(distance, 0.2 * math.sqrt(2 * math.log(2))), rtol=0.02, atol=0.0
    )


def test_automatic_threshold_shows_what_a_picture_shows() -> None:
    low, high = bounding_box(holding(round_one(0.1, 0.99)).isosurface())
    assert bool(((high - low) > 0.2).all()) and bool(((high - low) < 0.45).all())
    with pytest.raises(RunFailed, match="empty"):
        holding(round_one(opacity=0.01)).isosurface()


def test_field_gives_density_color_and_normal() -> None:
    made = holding(round_one())
    points = torch.tensor([[[0.3, 0.0, 0.0], [0.1, 0.2, 0.0]]])
    out = made(points, output_normal=True)
    assert out.density.shape == (1, 2, 1) and torch.equal(made.forward_density(points), out.density)
    torch.testing.assert_close(out.normal[0], torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    shown = torch.sigmoid(made.export(points)["features"][0, 0])
    torch.testing.assert_close(shown, torch.tensor([0.8, 0.2, 0.4]))


def test_field_follows_the_parameters() -> None:
    made = holding(round_one())
    before = made.forward_density(torch.zeros(1, 3))
    with torch.no_grad():
        made._opacity += 1.0
    assert made.forward_density(torch.zeros(1, 3)) > before
    made.set_rows(round_one(opacity=0.5))
    assert made.forward_density(torch.zeros(1, 3)) < before


def test_flat_ones_stay_flat_whatever_an_optimizer_does_to_their_weights() -> None:
    made = holding(round_one(), isosurface_blur=1.0)
    before = made.forward_density(torch.tensor([[0.1, 0.0, 0.0]]))
    made.flatten()
    sheet = made.forward_density(torch.tensor([[0.1, 0.0, 0.0]]))
    made.gaussians().scales.sum().backward()
    assert made._scaling.grad[0, 2] == 0.0 and made._scaling.grad[0, :2].min() > 0.0
    with torch.no_grad():
        made._scaling[:, 2] += 1.0  # as decay of the weights does in 1500 steps
    assert made.gaussians().scales[0, 2] == torch.tensor(FLAT)
    torch.testing.assert_close(made.forward_density(torch.tensor([[0.1, 0.0, 0.0]])), sheet)
    stored = holding(round_one(), isosurface_blur=1.0)
    stored.load_state_dict(made.state_dict())
    again = stored.forward_density(torch.tensor([[0.1, 0.0, 0.0]]))
    torch.testing.assert_close(again, sheet, msg="weights that are read without the renderer")
    assert sheet > before

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.core.random import RandomStreams
from maquette.core.registry import find
from maquette.models.backgrounds.solid_color import SolidColorBackground
from maquette.models.geometry.gaussian_splatting import GaussianSplatting
from maquette.models.geometry.implicit_volume import ImplicitVolume
from maquette.models.materials.gaussian_diffuse import GaussianDiffuseWithPointLightMaterial
from maquette.models.materials.no_material import NoMaterial
from maquette.ops.camera_batch import CameraBatch, make_camera_batch
from maquette.ops.cameras import look_at, orbit_to_position
from maquette.ops.gaussians import FLAT, Gaussians, colors_to_sh
from maquette.ops.transforms import world_to_screen

NAMES = tuple(f"diff-gaussian-rasterizer{kind}" for kind in ("", "-advanced", "-background", "-shading"))
RED = (0.9, 0.2, 0.1)


def cameras(views: int = 1, height: int = 20, width: int = 30, elevation: float = 10.0) -> CameraBatch:
    azimuth = torch.arange(views) * 50.0
    distance = torch.full((views,), 2.5)
    position = orbit_to_position(torch.full((views,), elevation), azimuth, distance)
    up = torch.tensor([[0.0, 0.0, 1.0]]).expand(views, 3)
    return make_camera_batch(
        look_at(position, torch.zeros(views, 3), up),
        torch.full((views,), math.radians(40.0)),
        height,
        width,
        light_positions=position,
        elevation=torch.full((views,), elevation),
        azimuth=azimuth,
        camera_distances=distance,
        rng=RandomStreams(0).at(0, range(views)),
    )


def dots(means: list[list[float]], scale: float = 0.03, opacity: float = 0.99) -> Gaussians:
    n = len(means)
    return Gaussians(
        means=torch.tensor(means),
        rotations=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(n, 4),
        scales=torch.full((n, 3), scale),
        opacities=torch.full((n,), opacity),
        sh=colors_to_sh(torch.tensor([RED]))[:, None].expand(n, 1, 3),
    )


def ball(n: int = 1500) -> Gaussians:
    """A dense shell: a surface."""
    points = torch.nn.functional.normalize(torch.randn(n, 3), dim=-1) * 0.5
    return dots(points.tolist(), scale=0.04)


def renderer(name: str, gaussians: Gaussians, training: bool = False, **options: Any) -> Any:
    geometry = GaussianSplatting({"pred_normal": options.pop("pred_normal", False)})
    geometry.set_rows(gaussians)
    lit = name.endswith("shading")
    material = GaussianDiffuseWithPointLightMaterial({"ambient_only_steps": 0}) if lit else NoMaterial()
    background = SolidColorBackground({"color": [0.0, 0.0, 0.5]})
    made = find(name, "renderer")(options, geometry=geometry, material=material, background=background)
    for part in (made, geometry, material, background):
        part.train(training)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_gives_what_the_field_expects(name: str) -> None:
    out = renderer(name, ball(), training=True)(**cameras(3, 12, 20))
    for key, channels in (
        ("comp_rgb", 3),
        ("comp_rgb_fg", 3),
        ("comp_rgb_bg", 3),
        ("opacity", 1),
        ("depth", 1),
    ):
        assert out[key].shape == (3, 12, 20, channels) and torch.isfinite(out[key]).all()
    assert out["viewspace_points"].shape == (3, 1500, 2)
    assert torch.equal(out["visibility_filter"], out["radii"] > 0) and out["radii"].max() > 0
    torch.testing.assert_close(
        out["comp_rgb"], out["comp_rgb_fg"] + out["comp_rgb_bg"] * (1 - out["opacity"])
    )
    out["comp_rgb"].square().sum().backward()
    assert out["viewspace_points"].grad.abs().sum() > 0


@pytest.mark.parametrize(("height", "width"), [(20, 30), (31, 17)])
def test_gaussians_are_where_the_cameras_of_this_project_see_them(height: int, width: int) -> None:
    places = [[0.3, 0.25, -0.1], [-0.2, 0.3, 0.2]]
    batch = cameras(2, height, width, elevation=30.0)
    for place in places:
        out = renderer("diff-gaussian-rasterizer", dots([place]))(**batch)
        expected = world_to_screen(torch.tensor([[place]]).expand(2, 1, 3), batch.mvp_mtx, height, width)
        torch.testing.assert_close(out["viewspace_points"], expected, rtol=0.0, atol=1e-3)
        weight = out["opacity"][..., 0]
        rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
        centre = (
            torch.stack(
                [(weight.sum(dim=1) * columns).sum(dim=1), (weight.sum(dim=2) * rows).sum(dim=1)], dim=-1
            )
            / weight.sum(dim=(1, 2))[:, None]
        )
        torch.testing.assert_close(centre, expected[:, 0], rtol=0.0, atol=0.15)


def test_depth_is_the_distance_along_the_ray() -> None:
    batch = cameras(1, 21, 21)
    out = renderer("diff-gaussian-rasterizer-advanced", ball())(**batch)
    middle = torch.zeros(1, 21, 21, dtype=torch.bool)
    middle[:, 8:13, 8:13] = True
    points = batch.rays_o + batch.rays_d * out["depth"] / out["opacity"].clamp(min=1e-6)
    radius = points[middle].norm(dim=-1)
    torch.testing.assert_close(radius, torch.full_like(radius, 0.5), rtol=0.0, atol=0.06)


def test_background_module_or_one_color() -> None:
    nothing = dots([[0.0, 0.0, 50.0]])
    seen = {name: renderer(name, nothing)(**cameras())["comp_rgb"][0, 0, 0].tolist() for name in NAMES}
    assert seen[NAMES[0]] == seen[NAMES[1]] == [1.0, 1.0, 1.0]
    assert seen[NAMES[2]] == seen[NAMES[3]] == [0.0, 0.0, 0.5]
    made = renderer(NAMES[0], nothing, back_ground_color=[0.25, 0.5, 1.0])
    assert made(**cameras())["comp_rgb"][0, 0, 0].tolist() == [0.25, 0.5, 1.0]
    given = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    torch.testing.assert_close(made(**cameras(2), bg_color=given)["comp_rgb"][:, 3, 4], given)
    picture = torch.rand(2, 20, 30, 3)
    torch.testing.assert_close(made(**cameras(2), bg_color=picture)["comp_rgb"], picture)


def test_color_behind_is_inverted_in_training_as_often_as_asked() -> None:
    options = {"invert_bg_prob": 0.25, "back_ground_color": [1.0, 0.0, 0.0]}
    made = renderer(NAMES[0], dots([[0.0, 0.0, 0.0]]), training=True, **options)
    drawn = [made.back_color(RandomStreams(0).at(step, [0]))[0] for step in range(200)]
    assert sum(drawn) / 200 == pytest.approx(0.25, abs=0.08)
    made.eval()
    assert {made.back_color(RandomStreams(0).at(step, [0]))[0] for step in range(20)} == {1.0}
    made = renderer(NAMES[0], dots([[0.0, 0.0, 0.0]]), training=True, back_ground_color=[1.0, 0.0, 0.0])
    assert {made.back_color(RandomStreams(0).at(step, [0]))[0] for step in range(20)} == {1.0}


def test_color_depends_on_the_direction_from_degree_one_on() -> None:
    gaussians = dots([[0.0, 0.0, 0.0]], scale=0.2)
    sh = torch.cat([gaussians.sh, torch.tensor([[[0.4, 0.0, 0.0]] * 3])], dim=1)
    geometry = GaussianSplatting({"sh_degree": 1})
    geometry.set_rows(gaussians.replace(sh=sh))
    made = renderer(NAMES[0], gaussians)
    made.refer_to(geometry=geometry)
    color = made(**cameras(3))["comp_rgb_fg"][:, 10, 15]
    assert (color[0] - color[2]).abs()[0] > 0.02 and (color[0] - color[2]).abs()[1] < 1e-4


@pytest.mark.parametrize("learned", [False, True])
def test_light_comes_from_where_it_stands(learned: bool) -> None:
    made = renderer(NAMES[3], ball(), pred_normal=learned)
    batch = cameras(1, 24, 24, elevation=0.0)
    batch.light_positions = torch.tensor([[0.0, 4.0, 0.0]])
    out = made(**batch)
    row = out["comp_rgb_fg"][0, 12, :, 0]
    right, left = row[14:18].mean(), row[6:10].mean()
    assert right > 3 * left and left > 0.05 * RED[0] * 0.9
    normal = out["comp_normal"][0, 12, 12] * 2 - 1
    torch.testing.assert_close(normal, torch.tensor([1.0, 0.0, 0.0]), rtol=0.0, atol=0.25)


def test_gradients_of_lit_pictures_are_finite() -> None:
    made = renderer(NAMES[3], ball(200), training=True)
    made(**cameras(1, 12, 12))["comp_rgb"].sum().backward()
    for parameter in made.geometry.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


def test_flat_primitives() -> None:
    gaussians = dots([[0.0, 0.0, 0.0]], scale=0.2).replace(
        scales=torch.tensor([[0.2, 0.2, 1e-4]]),
        rotations=torch.tensor([[math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0]]),
    )
    solid = renderer(NAMES[0], gaussians)(**cameras(1, elevation=0.0))
    flat = renderer(NAMES[0], gaussians, primitive="2d")(**cameras(1, elevation=0.0))
    assert flat["opacity"].sum().item() == pytest.approx(solid["opacity"].sum().item(), rel=0.1)
    normal = flat["comp_normal"][0, 10, 15] / flat["opacity"][0, 10, 15] * 2 - 1
    torch.testing.assert_close(normal, torch.tensor([1.0, 0.0, 0.0]), rtol=0.0, atol=0.05)


def test_a_cloud_that_is_drawn_flat_is_flat_wherever_it_goes() -> None:
    made = renderer(NAMES[0], ball(50), primitive="2d")
    view = cameras(2)
    shown = made(**view)["comp_rgb"]
    made.geometry.set_rows(ball(80))
    made.geometry.load_state_dict(renderer(NAMES[0], ball(60)).geometry.state_dict())
    cloud = made.geometry.gaussians()
    assert cloud.n == 60 and cloud.scales.amax() > 0.01
    torch.testing.assert_close(cloud.scales[:, 2], torch.full((60,), FLAT))
    made.geometry.cfg.sphere = True
    again = made.geometry.gaussians().scales
    assert torch.equal(again[:, 0], again[:, 1]) and again[:, 0].min() > 0.01
    torch.testing.assert_close(again[:, 2], torch.full((60,), FLAT))
    thick = renderer(NAMES[0], ball(60))
    assert thick.geometry.gaussians().scales[:, 2].min() > 0.01 and not thick.geometry.flat
    assert torch.isfinite(shown).all()


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match=r"system\.renderer\.primitive"):
        renderer(NAMES[0], ball(2), primitive="4d")
    with pytest.raises(ConfigError, match=r"system\.renderer\.invert_bg_prob"):
        renderer(NAMES[0], ball(2), invert_bg_prob=2.0)
    with pytest.raises(ConfigError, match=r"system\.renderer\.back_ground_color"):
        renderer(NAMES[0], ball(2), back_ground_color=[255, 255, 255])
    parts = {"material": NoMaterial(), "background": SolidColorBackground()}
    with pytest.raises(ConfigError, match="gaussian-splatting"):
        find(NAMES[0], "renderer")({}, geometry=ImplicitVolume(), **parts)


def pixels(out: Any) -> Tensor:
    return torch.cat([out["comp_rgb"], out["opacity"]], dim=-1)


def test_a_batch_is_its_views() -> None:
    made, batch = renderer(NAMES[0], ball(300)), cameras(3)
    together = pixels(made(**batch))
    for view in range(3):
        one = {
            key: value[view : view + 1] if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }
        torch.testing.assert_close(pixels(made(**one)), together[view : view + 1], rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_mixed_precision_changes_no_pixel(name: str) -> None:
    made = renderer(name, ball(100))
    expected = made(**cameras(2, 12, 16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = made(**cameras(2, 12, 16))
    for key in ("comp_rgb", "depth", "comp_normal"):
        assert found[key].dtype == torch.float32 and torch.equal(found[key], expected[key]), key

import math

import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.core.random import RandomStreams
from maquette.models.backgrounds.solid_color import SolidColorBackground
from maquette.models.geometry.base import GeometryOutput
from maquette.models.geometry.implicit_volume import ImplicitVolume
from maquette.models.materials.diffuse_with_point_light import DiffuseWithPointLightMaterial
from maquette.models.materials.no_material import NoMaterial
from maquette.models.renderers.nerf_volume import NeRFVolumeRenderer
from maquette.ops.camera_batch import make_camera_batch
from maquette.ops.cameras import look_at, orbit_to_position

GRID = {
    "otype": "HashGrid",
    "n_levels": 2,
    "n_features_per_level": 2,
    "log2_hashmap_size": 8,
    "base_resolution": 4,
    "per_level_scale": 1.5,
}
STREAMS = RandomStreams(0)


class Analytic(ImplicitVolume):
    """A body of constant density; features are the point, normals point away from the origin."""

    sigma = 400.0

    def inside(self, points):
        return points.norm(dim=-1, keepdim=True) < 0.5

    def forward_density(self, points):
        return self.sigma * self.inside(points).float()

    def forward(self, points, output_normal=False):
        normal = torch.nn.functional.normalize(points, dim=-1) if output_normal else None
        return GeometryOutput(
            density=self.forward_density(points), features=points, normal=normal, shading_normal=normal
        )


class Slab(Analytic):
    """Constant density in a box of thickness 0.6 along x."""

    sigma = 2.0

    def inside(self, points):
        return points[..., :1].abs() < 0.3


def batch(views=1, size=9, distance=2.0, rng=None, first=0):
    azimuth = torch.arange(first, first + views) * 40.0
    position = orbit_to_position(torch.zeros(views), azimuth, torch.full((views,), distance))
    return make_camera_batch(
        look_at(position, torch.zeros(views, 3), torch.tensor([[0.0, 0.0, 1.0]]).expand(views, 3)),
        torch.full((views,), math.radians(40.0)),
        size,
        size,
        light_positions=position,
        elevation=torch.zeros(views),
        azimuth=azimuth,
        camera_distances=torch.full((views,), distance),
        rng=rng,
    )


def renderer(geometry=Analytic, material=None, color=(0.0, 1.0, 0.0), **cfg):
    geometry = geometry({"pos_encoding_config": GRID}) if isinstance(geometry, type) else geometry
    material = material or NoMaterial({"color_activation": "none"})
    background = SolidColorBackground({"color": list(color)})
    return NeRFVolumeRenderer({"num_samples_per_ray": 256, **cfg}, geometry, material, background)


def trained_volume(**cfg):
    return ImplicitVolume({"pos_encoding_config": GRID, "density_blob_scale": 40.0, **cfg})


@pytest.mark.parametrize("cfg", [{}, {"estimator": "importance", "num_samples_per_ray": 64}])
def test_depth_color_normal_and_opacity_of_a_solid_ball(cfg):
    out = renderer(**cfg).eval()(**batch())
    depth = (out.depth / out.opacity)[0, 4, 4, 0].item()
    assert depth == pytest.approx(1.5, abs=0.02)
    assert out.opacity[0, 4, 4, 0].item() == pytest.approx(1.0, abs=1e-3)
    torch.testing.assert_close(out.comp_rgb[0, 4, 4], torch.tensor([0.5, 0.0, 0.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(out.comp_normal[0, 4, 4], torch.tensor([1.0, 0.5, 0.5]), atol=0.02, rtol=0)
    assert out.opacity[0, 0, 0, 0].item() == 0.0
    assert out.comp_rgb[0, 0, 0].tolist() == [0.0, 1.0, 0.0], "the background"
    assert out.z_variance[0, 4, 4, 0].item() < 1e-3


@pytest.mark.parametrize("cfg", [{}, {"estimator": "importance", "num_samples_per_ray": 64}])
def test_opacity_of_a_homogeneous_slab_is_beer_lambert(cfg):
    out = renderer(Slab, **cfg).eval()(**batch(size=1))
    assert out.opacity.item() == pytest.approx(1 - math.exp(-2.0 * 0.6), abs=0.01)


def test_variance_of_depth_of_a_slab():
    thick = type("Thick", (Slab,), {"sigma": 20.0})
    out = renderer(thick, num_samples_per_ray=2048).eval()(**batch(size=1))
    assert out.z_variance.item() == pytest.approx(1 / 20**2, rel=0.03), "exponential distribution"


def test_training_outputs_hang_together():
    render = renderer(trained_volume(), return_comp_normal=True, return_normal_perturb=True)
    render.do_update_step(0, 0)
    out = render(**batch(views=2, rng=STREAMS.at(0, [0, 1])))
    samples = len(out.ray_indices)
    shapes = {name: tuple(out[name].shape) for name in ("weights", "t_points", "t_dirs", "points", "normal")}
    one, three = (samples, 1), (samples, 3)
    assert shapes == {"weights": one, "t_points": one, "t_dirs": three, "points": three, "normal": three}
    assert out["normal_perturb"].shape == three and out.comp_normal.shape == (2, 9, 9, 3)
    opacity = torch.zeros(162).index_add(0, out.ray_indices, out.weights[:, 0])
    torch.testing.assert_close(opacity.reshape(2, 9, 9, 1), out.opacity)
    torch.testing.assert_close(out.comp_rgb, out.comp_rgb_fg + out.comp_rgb_bg * (1 - out.opacity))


def test_gradients_reach_geometry_and_background():
    render = renderer(trained_volume(), material=NoMaterial({}))
    render.refer_to(background=SolidColorBackground({"learned": True}))
    out = render(**batch(rng=STREAMS.at(0, [0])))
    (out.comp_rgb.mean() + out.z_variance.mean() + out.depth.mean()).backward()
    parameters = {**dict(render.geometry.named_parameters()), **dict(render.background.named_parameters())}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters.values())


def test_pruning_changes_nothing_that_is_seen():
    geometry = trained_volume()
    seen = [
        renderer(geometry, prune_alpha_threshold=prune)(**batch(rng=STREAMS.at(0, [0])))
        for prune in (True, False)
    ]
    torch.testing.assert_close(seen[0].comp_rgb, seen[1].comp_rgb, atol=2e-3, rtol=0)
    assert len(seen[0].ray_indices) < len(seen[1].ray_indices)


def test_the_occupancy_grid_skips_empty_space_and_keeps_the_picture():
    render = renderer(prune_alpha_threshold=False)
    before = render(**batch(rng=STREAMS.at(0, [0])))
    for step in range(0, 256, 16):
        render.do_update_step(0, step)
        render(**batch(rng=STREAMS.at(step, [step])))
    after = render(**batch(rng=STREAMS.at(0, [0])))
    assert len(after.ray_indices) < 0.5 * len(before.ray_indices)
    torch.testing.assert_close(after.comp_rgb, before.comp_rgb, atol=4e-2, rtol=0)


@pytest.mark.parametrize("cfg", [{}, {"estimator": "importance", "num_samples_per_ray": 16}])
def test_three_views_are_a_stack_of_single_views(cfg):
    render = renderer(trained_volume(), return_normal_perturb=True, **cfg)
    together = render(**batch(views=3, rng=STREAMS.at(2, [7, 8, 9])))
    alone = [render(**batch(views=1, first=i, rng=STREAMS.at(2, [7 + i]))) for i in range(3)]
    for name in ("comp_rgb", "opacity", "depth", "z_variance", "t_points", "normal_perturb"):
        stacked = torch.cat([one[name] for one in alone])
        torch.testing.assert_close(together[name], stacked, atol=1e-6, rtol=1e-5)


def test_batches_of_one_step_update_the_grid_once():
    """A step that is accumulated from four batches sees the grid of a step of one batch."""
    grids = []
    for batches in (1, 4):
        render = renderer(trained_volume())
        for step in (0, 16, 32):
            for part in range(batches):
                render.do_update_step(0, step)
                render(**batch(rng=STREAMS.at(step, [batches * step + part])))
        grids.append(render.grid.occs)
    assert torch.equal(*grids)


def test_evaluation_in_small_parts_is_the_same(monkeypatch):
    render = renderer(trained_volume()).eval()
    whole = render(**batch(views=2))
    monkeypatch.setattr("maquette.models.renderers.volume.SAMPLES_PER_CHUNK", 2000)
    parts = renderer(render.geometry, eval_chunk_size=501).eval()(**batch(views=2))
    assert set(whole) == set(parts)
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cfg", [{}, {"estimator": "importance"}])
def test_rays_that_hit_nothing_show_the_background(training, cfg):
    render = renderer(trained_volume(), return_comp_normal=True, **cfg).train(training)
    view = batch(rng=STREAMS.at(0, [0]))
    view.rays_o = view.rays_o + torch.tensor([0.0, 0.0, 50.0])
    out = render(**view)
    assert (out.opacity == 0).all() and (out.depth == 0).all()
    torch.testing.assert_close(out.comp_rgb, out.comp_rgb_bg)
    if training:
        out.comp_rgb.sum().backward()


@pytest.mark.parametrize("shape", [(2, 3), (2, 9, 9, 3)])
def test_a_given_background_color_takes_its_place(shape):
    color = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    out = renderer().eval()(**batch(views=2), bg_color=color)
    expected = color if color.ndim == 4 else color[:, None, None].expand(2, 9, 9, 3)
    torch.testing.assert_close(out.comp_rgb_bg, expected)
    torch.testing.assert_close(out.comp_rgb[:, 0, 0], expected[:, 0, 0])


def test_lights_belong_to_their_view():
    material = DiffuseWithPointLightMaterial(
        {"ambient_light_color": [0.0, 0.0, 0.0], "ambient_only_steps": 0}
    )
    render = renderer(material=material).eval()
    view = batch(views=2)
    front_lit = render(**view).comp_rgb_fg
    view.light_positions = torch.stack([view.light_positions[0], -view.light_positions[1]])
    one_dark = render(**view).comp_rgb_fg
    torch.testing.assert_close(one_dark[0], front_lit[0])
    assert one_dark[1, 4, 4].abs().max() < 0.05 < front_lit[1, 4, 4].max()


def test_the_renderer_owns_no_parameters_of_others():
    render = renderer(trained_volume())
    assert not list(render.parameters())
    assert not any(name.startswith(("geometry", "material", "background")) for name in render.state_dict())


def test_what_is_not_there_is_refused_with_its_alternatives():
    with pytest.raises(ConfigError, match="occgrid"):
        renderer(estimator="octree")
    with pytest.raises(ConfigError, match="far_plane"):
        renderer(near_plane=2.0, far_plane=1.0)
    with pytest.raises(ConfigError, match="num_samples_per_ray_importance"):
        renderer(num_samples_per_ray_importance=0)
    with pytest.raises(ConfigError, match="normal_type"):
        renderer(trained_volume(normal_type=None), material=DiffuseWithPointLightMaterial({}))

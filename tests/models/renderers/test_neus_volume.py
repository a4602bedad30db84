import math

import pytest
import torch
import torch.nn.functional as F

from maquette.core.errors import ConfigError
from maquette.core.random import RandomStreams
from maquette.models.backgrounds.solid_color import SolidColorBackground
from maquette.models.geometry.base import GeometryOutput
from maquette.models.geometry.implicit_sdf import ImplicitSDF
from maquette.models.geometry.implicit_volume import ImplicitVolume
from maquette.models.materials.no_material import NoMaterial
from maquette.models.renderers.nerf_volume import NeRFVolumeRenderer
from maquette.models.renderers.neus_volume import NeuSVolumeRenderer
from maquette.ops import losses
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
SHARP = {"learned_variance_init": 0.6}


class Ball(ImplicitSDF):
    """A ball of radius 0.5; features are the point."""

    def forward_sdf(self, points):
        return points.norm(dim=-1, keepdim=True) - 0.5

    def forward(self, points, output_normal=False):
        normal = F.normalize(points, dim=-1)
        return GeometryOutput(
            sdf=self.forward_sdf(points),
            features=points,
            normal=normal,
            shading_normal=normal,
            extras={"sdf_grad": normal},
        )


def batch(views=1, height=9, width=7, rng=None, first=0):
    azimuth = torch.arange(first, first + views) * 40.0
    position = orbit_to_position(torch.zeros(views), azimuth, torch.full((views,), 2.0))
    return make_camera_batch(
        look_at(position, torch.zeros(views, 3), torch.tensor([[0.0, 0.0, 1.0]]).expand(views, 3)),
        torch.full((views,), math.radians(40.0)),
        height,
        width,
        light_positions=position,
        elevation=torch.zeros(views),
        azimuth=azimuth,
        camera_distances=torch.full((views,), 2.0),
        rng=rng,
    )


def renderer(geometry=None, **cfg):
    geometry = geometry or Ball({"pos_encoding_config": GRID})
    background = SolidColorBackground({"color": [0.0, 1.0, 0.0]})
    material = NoMaterial({"color_activation": "none"})
    return NeuSVolumeRenderer({"num_samples_per_ray": 256, **cfg}, geometry, material, background)


def learned(**cfg):
    cfg = {"pos_encoding_config": GRID, "sdf_bias": "sphere", "sdf_bias_params": 0.5, **cfg}
    return ImplicitSDF(cfg)


@pytest.mark.parametrize("volsdf", [True, False])
@pytest.mark.parametrize("estimator", [{}, {"estimator": "importance", "num_samples_per_ray": 64}])
def test_depth_color_normal_and_opacity_of_a_solid_ball(volsdf, estimator):
    variance = {} if volsdf else SHARP
    out = renderer(use_volsdf=volsdf, **{"learned_variance_init": 0.45, **variance}, **estimator).eval()(
        **batch()
    )
    assert out.opacity[0, 4, 3, 0].item() == pytest.approx(1.0, abs=1e-3)
    depth = (out.depth / out.opacity)[0, 4, 3, 0].item()
    assert depth == pytest.approx(1.5, abs=0.02)
    torch.testing.assert_close(out.comp_rgb[0, 4, 3], torch.tensor([0.5, 0.0, 0.0]), atol=0.03, rtol=0)
    torch.testing.assert_close(out.comp_normal[0, 4, 3], torch.tensor([1.0, 0.5, 0.5]), atol=0.02, rtol=0)
    assert out.comp_rgb[0, 0, 0].tolist() == pytest.approx([0.0, 1.0, 0.0]), "the background"
    assert out["inv_std"].item() == pytest.approx(80.0 if volsdf else math.exp(6.0), rel=1e-3)


def test_the_outputs_are_those_of_the_renderer_of_volumes_and_the_sharpness():
    ours = renderer()(**batch(views=2, rng=STREAMS.at(0, [0, 1])))
    volume = ImplicitVolume({"pos_encoding_config": GRID})
    parts = (volume, NoMaterial({}), SolidColorBackground({}))
    theirs = NeRFVolumeRenderer({"return_comp_normal": True}, *parts)(
        **batch(views=2, rng=STREAMS.at(0, [0, 1]))
    )
    assert set(ours) - set(theirs) == {"sdf", "sdf_grad", "inv_std"}
    assert set(theirs) - set(ours) == {"density"}
    assert ours.comp_rgb.shape == (2, 9, 7, 3)


@pytest.mark.parametrize("volsdf", [True, False])
def test_gradients_reach_geometry_and_sharpness(volsdf):
    render = renderer(learned(), use_volsdf=volsdf)
    out = render(**batch(rng=STREAMS.at(0, [0])))
    (out.comp_rgb.mean() + losses.eikonal(out["sdf_grad"])).backward()
    parameters = {**dict(render.geometry.named_parameters()), **dict(render.named_parameters())}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters.values())
    assert [name for name, _ in render.named_parameters()] == ["variance._inv_std"]


@pytest.mark.parametrize("volsdf", [True, False])
def test_growing_the_ball_covers_more(volsdf):
    """The derivative of the covered area with respect to the radius has the right sign and size."""
    radius = torch.tensor(0.5, requires_grad=True)

    class Growing(Ball):
        def forward_sdf(self, points):
            return points.norm(dim=-1, keepdim=True) - radius

    render = renderer(Growing({"pos_encoding_config": GRID}), use_volsdf=volsdf, learned_variance_init=0.43)
    area = render(**batch(height=48, width=48)).opacity.mean()
    slope = torch.autograd.grad(area, radius)[0]
    # A ball of radius r at distance d fills a disc with the tangent r / sqrt(d^2 - r^2) of its half-angle.
    tangent = 0.5 / math.sqrt(4.0 - 0.25)
    side = 2.0 * math.tan(math.radians(20.0))
    expected = math.pi * 2.0 * tangent * (4.0 / (4.0 - 0.25) ** 1.5) / side**2
    assert slope.item() == pytest.approx(expected, rel=0.12 if volsdf else 0.05)


@pytest.mark.parametrize("volsdf", [True, False])
def test_three_views_are_a_stack_of_single_views(volsdf):
    render = renderer(learned(), use_volsdf=volsdf)
    together = render(**batch(views=3, rng=STREAMS.at(2, [7, 8, 9])))
    alone = [render(**batch(views=1, first=i, rng=STREAMS.at(2, [7 + i]))) for i in range(3)]
    for name in ("comp_rgb", "opacity", "depth", "t_points", "sdf"):
        stacked = torch.cat([one[name] for one in alone])
        torch.testing.assert_close(together[name], stacked, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("volsdf", [True, False])
def test_pruning_changes_nothing_that_is_seen(volsdf):
    seen = []
    for prune in (True, False):
        render = renderer(learned(), use_volsdf=volsdf, prune_alpha_threshold=prune, **SHARP)
        render.do_update_step(0, 0)
        seen.append(render(**batch(rng=STREAMS.at(0, [0]))))
    torch.testing.assert_close(seen[0].comp_rgb, seen[1].comp_rgb, atol=6e-2, rtol=0)
    assert len(seen[0].ray_indices) < 0.5 * len(seen[1].ray_indices)


@pytest.mark.parametrize("volsdf", [True, False])
def test_the_occupancy_grid_skips_empty_space_and_keeps_the_picture(volsdf):
    render = renderer(learned(), use_volsdf=volsdf, prune_alpha_threshold=False, **SHARP)
    before = render(**batch(rng=STREAMS.at(0, [0])))
    for step in range(0, 256, 16):
        render.do_update_step(0, step)
        render(**batch(rng=STREAMS.at(step, [step])))
    after = render(**batch(rng=STREAMS.at(0, [0])))
    assert len(after.ray_indices) < 0.5 * len(before.ray_indices)
    torch.testing.assert_close(after.comp_rgb, before.comp_rgb, atol=6e-2, rtol=0)


def test_evaluation_in_small_parts_is_the_same(monkeypatch):
    render = renderer(learned()).eval()
    whole = render(**batch(views=2))
    monkeypatch.setattr("maquette.models.renderers.volume.SAMPLES_PER_CHUNK", 2000)
    parts = renderer(render.geometry, eval_chunk_size=501).eval()(**batch(views=2))
    assert set(whole) == set(parts)
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name])


def test_the_cosine_is_annealed():
    render = renderer(cos_anneal_end_steps=100)
    seen = [render.cos_anneal]
    for step in (0, 25, 100, 500):
        render.do_update_step(0, step)
        seen.append(render.cos_anneal)
    assert seen == [0.0, 0.0, 0.25, 1.0, 1.0]
    assert renderer().cos_anneal == 1.0


def test_volsdf_does_without_normals():
    out = renderer(learned(normal_type=None), use_volsdf=True)(**batch(rng=STREAMS.at(0, [0])))
    assert "normal" not in out and "sdf_grad" not in out and "sdf" in out
    out = renderer(learned(), use_volsdf=True, return_sdf_grad=False)(**batch(rng=STREAMS.at(0, [0])))
    assert "normal" not in out
    shown = renderer(learned(), use_volsdf=True)(**batch(rng=STREAMS.at(0, [0])))
    assert shown.comp_normal.shape == (1, 9, 7, 3) and "sdf_grad" in shown


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ConfigError, match="normal_type"):
        renderer(learned(normal_type=None))
    with pytest.raises(ConfigError, match="geometry_type"):
        renderer(ImplicitVolume({"pos_encoding_config": GRID}))
    with pytest.raises(ConfigError, match="cos_anneal_end_steps"):
        renderer(cos_anneal_end_steps=-1)
    parts = (NoMaterial({}), SolidColorBackground({}))
    with pytest.raises(ConfigError, match="geometry_type"):
        NeRFVolumeRenderer({}, learned(), *parts)


@pytest.mark.parametrize("training", [True, False])
def test_intervals_of_no_length_are_empty(training):
    """Without jitter the 32nd of 64 coarse edges is the 256th of 512 fine ones."""
    render = renderer(estimator="importance", num_samples_per_ray=512, num_samples_per_ray_importance=64)
    render.train(training)
    out = render(**batch())
    assert torch.isfinite(out["comp_rgb"]).all() and torch.isfinite(out["opacity"]).all()

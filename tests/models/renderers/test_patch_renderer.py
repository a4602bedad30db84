"""A small view with a sharp patch, over a renderer whose pictures are a formula of the rays."""

import math
from dataclasses import dataclass

import pytest
import torch

from maquette.core.errors import ConfigError, UnknownNameError
from maquette.core.random import RandomStreams
from maquette.core.registry import find, register
from maquette.models.backgrounds.solid_color import SolidColorBackground
from maquette.models.geometry.implicit_volume import ImplicitVolume
from maquette.models.materials.no_material import NoMaterial
from maquette.models.renderers.base import BaseRenderer, RenderOutput
from maquette.models.renderers.patch import PatchRenderer
from maquette.ops.camera_batch import make_camera_batch
from maquette.ops.cameras import look_at, orbit_to_position

STREAMS = RandomStreams(0)
GRID = {"otype": "HashGrid", "n_levels": 1, "log2_hashmap_size": 6, "base_resolution": 4}


@register("formula-renderer-of-a-test")
class Formula(BaseRenderer):
    """Colour is the direction times a learned factor; opacity tells how wide the picture was."""

    @dataclass(kw_only=True)
    class Config(BaseRenderer.Config):
        pass

    def configure(self, *args, **kwargs):
        super().configure(*args, **kwargs)
        self.factor = torch.nn.Parameter(torch.ones(()))
        self.sizes = []

    def forward(self, rays_o, rays_d, light_positions, bg_color=None, rng=None, **kwargs):
        self.sizes.append((kwargs["height"], kwargs["width"]))
        assert rays_o.shape[1:3] == self.sizes[-1]
        background = rays_d.new_zeros(3) if bg_color is None else bg_color
        if background.ndim == 2:
            background = background[:, None, None]
        return RenderOutput(
            comp_rgb=rays_d * self.factor + background,
            opacity=torch.full_like(rays_d[..., :1], rays_d.shape[2]),
            weights=rays_d.new_ones(rays_d[..., 0].numel(), 1),
        )


@register("raster-renderer-of-a-test")
class Raster(BaseRenderer):
    def forward(self, mvp_mtx, height, width, **kwargs):
        raise AssertionError


def parts():
    geometry = ImplicitVolume({"pos_encoding_config": GRID, "normal_type": None})
    return {"geometry": geometry, "material": NoMaterial({}), "background": SolidColorBackground({})}


def renderer(base="formula-renderer-of-a-test", **cfg):
    size = {"patch_size": 5, "global_downsample": 3}
    return PatchRenderer({"base_renderer_type": base, **size, **cfg}, **parts())


def batch(views=2, height=12, width=18, step=0, first=0, **kwargs):
    position = orbit_to_position(torch.zeros(views), 40.0 * torch.arange(views), torch.full((views,), 2.0))
    index = torch.arange(first, first + views)
    return make_camera_batch(
        look_at(position, torch.zeros(views, 3), torch.tensor([[0.0, 0.0, 1.0]]).expand(views, 3)),
        torch.full((views,), math.radians(40.0)),
        height,
        width,
        light_positions=position,
        elevation=torch.zeros(views),
        azimuth=torch.zeros(views),
        camera_distances=torch.full((views,), 2.0),
        index=index,
        rng=STREAMS.at(step, index),
        step=step,
        **kwargs,
    )


def sharp_pixels(out, given):
    """Where the full resolution was drawn; that it shows what it should."""
    sharp = (out.opacity[..., 0] - given.width // 3).abs() > 0.1
    assert torch.equal(out.comp_rgb[sharp], given.rays_d[sharp])
    return sharp


def test_is_registered():
    assert find("patch-renderer", "renderer") is PatchRenderer


@pytest.mark.parametrize("views", [1, 3])
def test_the_patch_is_sharp_and_the_rest_is_close(views):
    patched, given = renderer(), batch(views)
    out = patched(**given)
    assert out.comp_rgb.shape == (views, 12, 18, 3) and out.opacity.shape == (views, 12, 18, 1)
    sharp = sharp_pixels(out, given)
    rows, columns = sharp[0].nonzero().amin(0).tolist(), sharp[0].nonzero().amax(0).tolist()
    assert [b - a for a, b in zip(rows, columns, strict=True)] == [4, 4]
    assert sharp.sum() == 25 * views
    inner = (out.comp_rgb - given.rays_d)[:, 2:-2, 2:-2].norm(dim=-1)
    assert inner.max() < 0.01
    assert patched.base_renderer.sizes == [(4, 6), (5, 5)]
    assert out.weights.shape == (views * 24, 1)


def test_the_place_of_the_patch_belongs_to_the_step():
    patched = renderer()
    places = []
    for step in range(60):
        first, second = (sharp_pixels(patched(**b), b) for b in (batch(1, step=step), batch(3, step=step)))
        assert torch.equal(first[0], second[0])
        places.append(tuple(first[0].nonzero()[0].tolist()))
    assert len(set(places)) > 20
    assert min(p[0] for p in places) == 0 and max(p[0] for p in places) == 7
    assert min(p[1] for p in places) == 0 and max(p[1] for p in places) >= 12


def test_the_base_renderer_draws_alone_in_evaluation():
    patched, given = renderer().eval(), batch()
    assert sharp_pixels(patched(**given), given).all()
    assert patched.base_renderer.sizes == [(12, 18)]


def test_small_pictures_are_their_own_patch():
    patched, given = renderer(patch_size=128), batch()
    assert sharp_pixels(patched(**given), given).all()
    tiny = batch(1, height=1, width=2)
    assert patched(**tiny).comp_rgb.shape == (1, 1, 2, 3)


def test_gradients_come_from_both_or_from_the_patch_alone():
    given, grads = batch(1), []
    for detach in (False, True):
        patched = renderer(global_detach=detach)
        out = patched(**given)
        weight = torch.ones_like(out.comp_rgb)
        (out.comp_rgb * weight * given.rays_d).sum().backward()
        grads.append(float(patched.base_renderer.factor.grad))
    assert grads[0] == pytest.approx(12 * 18, rel=0.01)
    assert grads[1] == pytest.approx(25, rel=1e-4)


def test_directions_that_are_not_unit_vectors_stay_so():
    given = batch(1, normalize_rays=False)
    out = renderer()(**given)
    torch.testing.assert_close(out.comp_rgb[0, 5, 8], given.rays_d[0, 5, 8], atol=1e-3, rtol=0)


@pytest.mark.parametrize("shape", [(2, 3), (2, 12, 18, 3)])
def test_a_background_is_cut_along(shape):
    color = torch.full(shape, 0.25)
    given = batch()
    out = renderer()(**{**given, "bg_color": color})
    assert ((out.comp_rgb - given.rays_d - 0.25).abs() < 0.02)[:, 2:-2, 2:-2].all()


def test_the_base_is_part_of_the_state_and_follows_exchanged_modules():
    patched = renderer()
    assert "base_renderer.factor" in patched.state_dict()
    other = ImplicitVolume({"pos_encoding_config": GRID, "normal_type": None})
    patched.refer_to(geometry=other)
    assert patched.geometry is other and patched.base_renderer.geometry is other


def test_over_the_volume_renderer():
    cfg = {"radius": 1.0, "num_samples_per_ray": 16, "grid_prune": False, "eval_chunk_size": 500}
    patched = renderer("nerf-volume-renderer", base_renderer=cfg)
    patched.do_update_step(0, 0)
    out = patched(**batch(2, height=9, width=14))
    assert out.comp_rgb.shape == (2, 9, 14, 3)
    out.comp_rgb.sum().backward()
    assert (
        patched.geometry.encoding.encoding.table.grad.abs().sum() > 0
        if hasattr(patched.geometry.encoding.encoding, "table")
        else True
    )
    assert patched.eval()(**batch(1, height=9, width=14)).comp_rgb.shape == (1, 9, 14, 3)


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="base_renderer_type"):
        PatchRenderer({}, **parts())
    with pytest.raises(ConfigError, match="follows rays"):
        renderer("raster-renderer-of-a-test")
    with pytest.raises(ConfigError, match="follows rays"):
        renderer("patch-renderer")
    with pytest.raises(UnknownNameError):
        renderer("no-such-renderer")
    with pytest.raises(ConfigError, match="patch_size"):
        renderer(patch_size=0)

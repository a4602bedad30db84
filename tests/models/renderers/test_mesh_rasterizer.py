"""Meshes drawn through the renderer's interface: known pictures, gradients, and what may go wrong."""

import math

import pytest
import torch

from maquette.core.random import RandomStreams
from maquette.core.registry import find
from maquette.models.backgrounds.neural_environment_map import NeuralEnvironmentMapBackground
from maquette.models.backgrounds.solid_color import SolidColorBackground
from maquette.models.geometry.base import BaseExplicitGeometry, GeometryOutput
from maquette.models.materials.diffuse_with_point_light import DiffuseWithPointLightMaterial
from maquette.models.materials.no_material import NoMaterial
from maquette.models.renderers.deferred_shading import DeferredShadingRasterizer
from maquette.models.renderers.mesh_rasterizer import MeshRasterizer, view_directions
from maquette.ops.camera_batch import make_camera_batch
from maquette.ops.cameras import look_at, orbit_to_position
from maquette.ops.mesh import Mesh

RENDERERS = [MeshRasterizer, DeferredShadingRasterizer]
FOVY = math.radians(40.0)


class Square(BaseExplicitGeometry):
    """A square in the plane x = 0 that looks to the front; features are the position, times a parameter."""

    half = 0.5

    def configure(self, *args, **kwargs):
        super().configure()
        self.size = torch.nn.Parameter(torch.tensor(self.half))
        self.gain = torch.nn.Parameter(torch.ones(3))
        self.made = 0

    def isosurface(self):
        self.made += 1
        corners = torch.tensor([[0.0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]])
        faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
        uvs = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
        return Mesh(corners * self.size, faces, uvs=uvs, uv_faces=faces)

    def forward(self, points, output_normal=False):
        return GeometryOutput(features=points * self.gain)


class Nothing(Square):
    def isosurface(self):
        return Mesh(self.size * torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long))


def batch(views=1, height=24, width=24, distance=2.0, rng=None):
    azimuth = torch.arange(views) * 20.0
    position = orbit_to_position(torch.zeros(views), azimuth, torch.full((views,), distance))
    return make_camera_batch(
        look_at(position, torch.zeros(views, 3), torch.tensor([[0.0, 0.0, 1.0]]).expand(views, 3)),
        torch.full((views,), FOVY),
        height,
        width,
        light_positions=position,
        elevation=torch.zeros(views),
        azimuth=azimuth,
        camera_distances=torch.full((views,), distance),
        rng=rng,
    )


def renderer(kind=MeshRasterizer, geometry=Square, material=None, background=None, **cfg):
    geometry = geometry({}) if isinstance(geometry, type) else geometry
    material = material or NoMaterial({"color_activation": "none"})
    background = background or SolidColorBackground({"color": [0.0, 1.0, 0.0]})
    return kind(cfg, geometry, material, background)


def test_both_names_are_one_renderer():
    assert find("nvdiff-rasterizer", "renderer") is find("mesh-rasterizer", "renderer") is MeshRasterizer
    assert renderer(context_type="gl").cfg.context_type == "gl"


@pytest.mark.parametrize("kind", RENDERERS)
@pytest.mark.parametrize("training", [True, False])
def test_depth_color_normal_and_opacity_of_a_square(kind, training):
    view = batch(height=25, width=31)
    out = renderer(kind).train(training)(**view)
    half = 0.25 * 25 / math.tan(FOVY / 2) / 2
    assert out.opacity.sum().item() == pytest.approx((2 * half) ** 2, rel=0.01)
    assert out.opacity[0, 12, 15].item() == 1.0 and out.opacity[0, 0, 0].item() == 0.0
    solid = out.opacity[0, ..., 0] == 1
    solid &= torch.nn.functional.avg_pool2d(solid[None].float(), 3, 1, 1)[0] == 1
    cosine = -view.rays_d[0, ..., :1]
    torch.testing.assert_close(out.depth[0][solid], (2.0 / cosine)[solid], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        out.comp_normal[0][solid], torch.tensor([1.0, 0.5, 0.5]).expand(int(solid.sum()), 3)
    )
    points = view.rays_o + 2.0 / cosine * view.rays_d
    torch.testing.assert_close(out.comp_rgb[0][solid], points[0][solid], atol=1e-4, rtol=0)
    assert out.comp_rgb[0, 0, 0].tolist() == [0.0, 1.0, 0.0], "the background"
    torch.testing.assert_close(out.comp_rgb, out.comp_rgb_fg + out.comp_rgb_bg * (1 - out.opacity))
    assert not out.comp_normal[0, 0, 0].any() and out["mesh"].n_faces == 2


def test_deferred_buffers_are_what_is_shaded():
    out = renderer(DeferredShadingRasterizer).eval()(**batch())
    torch.testing.assert_close(out["features"], out["position"])
    inside = out.opacity[..., 0] == 1
    torch.testing.assert_close(out.comp_rgb[inside], out["features"][inside])


@pytest.mark.parametrize("kind", RENDERERS)
def test_the_covered_area_has_its_gradient(kind):
    render = renderer(kind)
    out = render(**batch(height=80, width=60))
    out.opacity.sum().backward()
    scale = 80 / math.tan(FOVY / 2) / 2 / 2
    assert render.geometry.size.grad.item() == pytest.approx(2 * (2 * scale) ** 2 * 0.5, rel=0.02)


@pytest.mark.parametrize("kind", RENDERERS)
def test_colours_have_gradients(kind):
    render = renderer(kind)
    out = render(**batch(views=3))
    out.comp_rgb.square().sum().backward()
    assert (render.geometry.gain.grad[1:] > 0).all()


@pytest.mark.parametrize("kind", RENDERERS)
def test_light_and_normals_reach_the_material(kind):
    material = DiffuseWithPointLightMaterial({"ambient_only_steps": 0, "albedo_activation": "none"})
    out = renderer(kind, material=material).eval()(**batch(height=25, width=25))
    plain = renderer(kind).eval()(**batch(height=25, width=25))
    towards = torch.nn.functional.normalize(torch.tensor([2.0, 0, 0]) - plain.comp_rgb[0, 14, 10], dim=-1)
    expected = plain.comp_rgb[0, 14, 10] * (0.1 + 0.9 * towards[0])
    torch.testing.assert_close(out.comp_rgb[0, 14, 10], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", RENDERERS)
def test_tangents_reach_a_material_that_takes_them(kind):
    class Tangents(NoMaterial):
        requires_tangent = True

        def forward(self, features, tangent, viewdirs, **kwargs):
            assert tangent.shape == (len(features), 4)
            return tangent[:, :3] * tangent[:, 3:]

    out = renderer(kind, material=Tangents({})).eval()(**batch())
    torch.testing.assert_close(out.comp_rgb[0, 12, 12], torch.tensor([0.0, 1.0, 0.0]))


def test_the_rest_of_the_batch_reaches_the_material_in_training_only():
    class Kept(NoMaterial):
        def forward(self, features, rng=None, **kwargs):
            self.seen = {"rng": rng, **kwargs}
            return features

    render = renderer(material=Kept({}))
    view = batch(rng=RandomStreams(0).at(0, [0]))
    render.train()(**view)
    assert render.material.seen["azimuth"].tolist() == [0.0] and render.material.seen["rng"] is view.rng
    render.eval()(**view)
    assert "azimuth" not in render.material.seen and render.material.seen["rng"] is None


def test_background_is_asked_for_the_direction_of_each_pixel():
    view = batch(views=2, height=6, width=9)
    directions = view_directions(view.mvp_mtx, view.camera_positions, (6, 9))
    torch.testing.assert_close(directions, view.rays_d, atol=1e-5, rtol=0)
    background = NeuralEnvironmentMapBackground({})
    out = renderer(background=background).eval()(**view)
    torch.testing.assert_close(out.comp_rgb_bg, background(view.rays_d), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", RENDERERS)
def test_a_given_colour_takes_the_place_of_the_background(kind):
    render = renderer(kind).eval()
    color = torch.tensor([[0.2, 0.3, 0.4], [0.5, 0.6, 0.7]])
    out = render(**batch(views=2), bg_color=color)
    torch.testing.assert_close(out.comp_rgb[:, 0, 0], color)
    full = color[:, None, None].expand(2, 24, 24, 3)
    torch.testing.assert_close(render(**batch(views=2), bg_color=full).comp_rgb, out.comp_rgb)


@pytest.mark.parametrize("kind", RENDERERS)
def test_shape_alone(kind):
    out = renderer(kind)(**batch(), render_rgb=False)
    assert "comp_rgb" not in out and out.comp_normal.shape == (1, 24, 24, 3)


@pytest.mark.parametrize("kind", RENDERERS)
@pytest.mark.parametrize("geometry", [Nothing, Square])
def test_what_nobody_sees_is_background_and_still_trains(kind, geometry):
    render = renderer(kind, geometry)
    view = batch(views=2, distance=-2.0) if geometry is Square else batch(views=2)
    if geometry is Square:
        view.mvp_mtx = view.mvp_mtx * torch.tensor([1.0, 1.0, -1.0, -1.0])[:, None]
    out = render(**view)
    assert not out.opacity.any() and torch.equal(out.comp_rgb, out.comp_rgb_bg)
    assert not out.depth.any() and not out.comp_normal.any()
    (out.comp_rgb.sum() + out.opacity.sum()).backward()
    assert render.geometry.size.grad.item() == 0 and not render.geometry.gain.grad.any()


@pytest.mark.parametrize("kind", RENDERERS)
def test_a_batch_is_its_views_stacked(kind):
    render, view = renderer(kind).eval(), batch(views=3)
    together = render(**view)
    for index in range(3):
        names = ("mvp_mtx", "camera_positions", "light_positions")
        alone = render(**{name: view[name][index : index + 1] for name in names}, height=24, width=24)
        for name in ("comp_rgb", "opacity", "depth", "comp_normal"):
            torch.testing.assert_close(alone[name][0], together[name][index])


def test_the_surface_is_made_once_in_evaluation_until_it_changes():
    render = renderer().eval()
    with torch.no_grad():
        for _ in range(3):
            render(**batch())
        assert render.geometry.made == 1
        render.geometry.size.mul_(0.5)
        small = render(**batch())
    assert render.geometry.made == 2 and small.opacity.mean() < 0.15
    render.train()(**batch())
    assert render.geometry.made == 3


def test_evaluation_in_parts_changes_nothing(monkeypatch):
    pictures = []
    for points in (2**16, 50):
        monkeypatch.setattr("maquette.models.renderers.mesh_rasterizer.POINTS_PER_CHUNK", points)
        monkeypatch.setattr("maquette.models.renderers.deferred_shading.POINTS_PER_CHUNK", points)
        pictures.append([renderer(kind).eval()(**batch()).comp_rgb for kind in RENDERERS])
    for one, other in zip(*pictures, strict=True):
        assert torch.equal(one, other)


def test_a_silhouette_is_enough_to_find_the_size():
    with torch.no_grad():
        wanted = renderer().eval()
        wanted.geometry.size.fill_(0.37)
        target = wanted(**batch(views=2)).opacity
    render = renderer()
    optimizer = torch.optim.Adam([render.geometry.size], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        (render(**batch(views=2)).opacity - target).square().sum().backward()
        optimizer.step()
    assert render.geometry.size.item() == pytest.approx(0.37, rel=0.01)


@pytest.mark.parametrize("kind", RENDERERS)
def test_mixed_precision_leaves_positions_exact(kind):
    render, view = renderer(kind), batch(height=40, width=56)
    plain = render(**view)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = render(**view)
    for name in ("opacity", "depth", "comp_normal", "comp_rgb_bg"):
        torch.testing.assert_close(mixed[name], plain[name])

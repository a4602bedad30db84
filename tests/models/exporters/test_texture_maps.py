"""Maps of a material on a ball whose values are known everywhere, read back from the textures."""

import math
from dataclasses import dataclass

import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.core.registry import find
from maquette.io.mesh import read_mesh, write_mesh
from maquette.models.exporters.baking import texels
from maquette.models.exporters.dummy import DummyExporter
from maquette.models.exporters.mesh import MeshExporter
from maquette.models.exporters.surface_colors import SurfaceColors
from maquette.models.exporters.texture_maps import bake_maps, detailed_normals
from maquette.models.geometry.base import BaseExplicitGeometry, BaseImplicitGeometry, GeometryOutput
from maquette.models.geometry.custom_mesh import CustomMesh
from maquette.models.materials.base import BaseMaterial
from maquette.models.materials.neural_radiance import NeuralRadianceMaterial
from maquette.models.materials.pbr import PBRMaterial
from maquette.models.materials.sd_latent_adapter import StableDiffusionLatentAdapterMaterial
from maquette.ops.image import sample_texture
from maquette.ops.mesh import Mesh, triangles, vertex_normals, volume
from maquette.ops.mesh_health import mesh_report
from maquette.ops.tangents import east_of, from_tangent_space, mesh_tangents

RADIUS = 0.5


class Ball(BaseImplicitGeometry):
    """A signed distance; features are the point, a constant, and a bump that leans east."""

    @dataclass(kw_only=True)
    class Config(BaseImplicitGeometry.Config):
        isosurface_resolution: int = 24
        isosurface_threshold: float = 0.0
        isosurface_coarse_to_fine: bool = False
        n_feature_dims: int = 8

    def forward(self, points, output_normal=False):
        return GeometryOutput(sdf=self._sdf(points), features=self.features(points))

    def forward_field(self, points):
        return self._sdf(points), None

    def forward_level(self, field, threshold):
        return field - threshold

    def export(self, points, **kwargs):
        return {"features": self.features(points)}

    def features(self, points):
        rest = points.new_tensor([0.25, 0.75, 0.8, 0.5, 0.5]).expand(len(points), 5)
        return torch.cat([0.5 + 0.5 * points, rest], dim=-1)[:, : self.cfg.n_feature_dims]

    def _sdf(self, points):
        return points.norm(dim=-1, keepdim=True) - RADIUS


class Given(BaseExplicitGeometry):
    """Two separate squares, one with a side of 1 and one of 0.2, with coordinates of their own."""

    uvs: bool = True

    def isosurface(self):
        square = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1]])
        vertices = torch.cat([square, 0.2 * square + torch.tensor([0.5, 0.0, 0.0])])
        faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
        uvs = torch.cat([0.5 * square[:, 1:], 0.5 + 0.5 * square[:, 1:]])
        faces = torch.cat([faces, faces + 4])
        return Mesh(vertices, faces, uvs=uvs, uv_faces=faces) if self.uvs else Mesh(vertices, faces)

    def export(self, points, **kwargs):
        return {"features": points.clamp(0, 1)}


class Plain(BaseMaterial):
    def export(self, features, **kwargs):
        return {"albedo": features[..., :3]}


class Bare(BaseMaterial):
    pass


def exporter(geometry=None, material=None, **cfg) -> MeshExporter:
    material = material or PBRMaterial({"material_activation": "none", "max_metallic": 1.0})
    options = {"texture_size": 128, "texture_format": "png", "max_faces": 1200, **cfg}
    return MeshExporter(options, geometry or Ball({}), material)


def exported(path, **cfg):
    item = exporter(**cfg)()[0]
    return write_mesh(item.params["v_pos"], path / item.save_name, **item.params["options"])[0]


def surface_samples(mesh, n=5):
    """Points inside of faces: position, texture coordinate, interpolated normal and tangent."""
    barycentric = torch.distributions.Dirichlet(torch.ones(3)).sample((mesh.n_faces, n))

    def mixed(values, index):
        return torch.einsum("fnk,fkc->fnc", barycentric, values[index]).reshape(-1, values.shape[1])

    tangents, corners = mesh_tangents(mesh)
    normals = torch.nn.functional.normalize(mixed(vertex_normals(mesh), mesh.faces), dim=-1)
    points = torch.einsum("fnk,fkc->fnc", barycentric, triangles(mesh)).reshape(-1, 3)
    return points, mixed(mesh.uvs, mesh.uv_faces), normals, mixed(tangents, corners)


def angle(a, b):
    return torch.rad2deg(torch.acos(torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(-1, 1)))


@pytest.fixture(scope="module")
def asset(tmp_path_factory):
    return read_mesh(exported(tmp_path_factory.mktemp("asset")))


def test_the_file_has_all_three_maps_where_they_belong(asset):
    assert set(asset.texture) == {"base_color", "metallic_roughness", "normal"}
    points, uv, _, _ = surface_samples(asset)
    color = sample_texture(asset.texture["base_color"], uv)
    assert (color - (0.5 + 0.5 * points)).abs().max() < 0.03
    packed = sample_texture(asset.texture["metallic_roughness"], uv)
    roughness = 0.08 + 0.75 * (0.9 - 0.08)
    torch.testing.assert_close(
        packed, torch.tensor([1.0, roughness, 0.25]).expand_as(packed), atol=0.006, rtol=0
    )


def test_a_bump_keeps_its_world_direction_in_the_frame_of_the_texture(asset):
    """The material leans the normal towards the east; the atlas turns its charts as it likes."""
    _, uv, normals, tangents = surface_samples(asset)
    local = 2.0 * sample_texture(asset.texture["normal"], uv) - 1.0
    shown = from_tangent_space(local, normals, tangents)
    lean = torch.nn.functional.normalize(torch.tensor([0.6, 0.0, 1.0]), dim=-1).expand(len(normals), 3)
    expected = from_tangent_space(lean, normals, east_of(normals))
    away = normals[:, 2].abs() < 0.95
    assert angle(shown, expected)[away].median() < 1.5
    assert angle(shown, expected)[away].quantile(0.99) < 8.0


def test_the_asset_is_healthy(asset):
    report = mesh_report(asset)
    assert report.healthy and report.uv_overlap < 1e-3
    assert volume(asset).item() == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.05)


def test_own_coordinates_and_all_pieces_of_given_triangles_are_kept():
    mesh = exporter(Given({}), Plain({}), max_faces=1)()[0].params["v_pos"]
    given = Given({}).isosurface()
    for name in ("vertices", "faces", "uvs", "uv_faces"):
        assert torch.equal(getattr(mesh, name), getattr(given, name))
    points, uv, _, _ = surface_samples(mesh)
    assert (sample_texture(mesh.texture["base_color"], uv) - points).abs().max() < 0.03


def test_given_triangles_without_coordinates_are_unwrapped():
    geometry = Given({})
    geometry.uvs = False
    mesh = exporter(geometry, Plain({}))()[0].params["v_pos"]
    assert mesh.has_uvs and torch.equal(mesh.vertices, geometry.isosurface().vertices)


def test_bumps_of_a_textured_frame_pass_unchanged():
    mesh, material = Given({}).isosurface(), PBRMaterial({"material_activation": "none"})
    geometry = Given({})
    raw = torch.tensor([0.5, 0.5, 0.5, 0, 0, 0.7, 0.4, 0.3])
    geometry.export = lambda points: {"features": raw.expand(len(points), 8)}
    colors = SurfaceColors(geometry, material, 1, 0.0)
    expected = material.export(raw[None])["bump"][0]
    same = bake_maps(mesh, colors, 16, 1, frame=mesh)["normal"]
    torch.testing.assert_close(same, expected.expand(16, 16, 3), atol=1e-5, rtol=0)


def test_coordinates_that_overlap_are_replaced_but_bumps_still_follow_them():
    geometry, material = Given({}), PBRMaterial({"material_activation": "none"})
    lean = torch.tensor([0.5, 0.5, 0.5, 0, 0, 0.8, 0.5, 0.5])
    geometry.export = lambda points: {"features": lean.expand(len(points), 8)}
    given = geometry.isosurface()
    tiled = given.replace(uvs=torch.stack([-3.0 * given.uvs[:, 1], given.uvs[:, 0]], dim=-1))
    geometry.isosurface = lambda: tiled
    mesh = exporter(geometry, material)()[0].params["v_pos"]
    assert mesh.uvs.min() >= 0 and mesh.uvs.max() <= 1
    _, uv, normals, tangents = surface_samples(mesh)
    shown = from_tangent_space(2.0 * sample_texture(mesh.texture["normal"], uv) - 1.0, normals, tangents)
    expected = torch.nn.functional.normalize(torch.tensor([1.0, 0.0, -0.6]), dim=-1)
    assert angle(shown, expected.expand_as(shown)).max() < 3.0


def test_the_shape_lost_in_simplifying_is_kept_in_the_normal_map():
    class Wavy(Ball):
        def _sdf(self, points):
            return super()._sdf(points) - 0.01 * torch.sin(25.0 * points[..., :1])

    cfg = {"max_faces": 250, "bake_normals": True, "texture_size": 256}
    mesh = exporter(Wavy({"isosurface_resolution": 64}), Plain({}), **cfg)()[0].params["v_pos"]
    points, uv, normals, tangents = surface_samples(mesh)
    shown = from_tangent_space(2.0 * sample_texture(mesh.texture["normal"], uv) - 1.0, normals, tangents)
    slope = torch.nn.functional.normalize(points, dim=-1)
    slope = slope - 0.25 * torch.cos(25.0 * points[:, :1]) * torch.tensor([1.0, 0.0, 0.0])
    assert angle(shown, slope).median() < 0.5 * angle(normals, slope).median()


def test_normals_out_of_reach_stay():
    fine = exporter(max_faces=0).surface()
    points, normals = torch.tensor([[2.0, 0, 0], [0.5, 0, 0]]), torch.tensor([[0.0, 1, 0], [0.6, 0.8, 0]])
    found = detailed_normals(fine, points, normals)
    torch.testing.assert_close(found[0], normals[0])
    assert angle(found[1:], points[1:]) < 5
    inside_out = detailed_normals(fine, points[1:], -points[1:] * 2)
    torch.testing.assert_close(inside_out, -points[1:] * 2)


def test_radiance_is_seen_along_the_inward_normal():
    material = NeuralRadianceMaterial({"input_feature_dims": 3})
    geometry = Ball({"n_feature_dims": 3})
    points = torch.nn.functional.normalize(torch.randn(7, 3), dim=-1) * RADIUS
    normals = torch.nn.functional.normalize(points, dim=-1)
    found = SurfaceColors(geometry, material, 5, 0.1)(points, normals)
    torch.testing.assert_close(found, material(geometry.features(points), -normals))


def test_latents_are_exported_as_colours():
    material = StableDiffusionLatentAdapterMaterial({})
    mesh = exporter(Ball({"n_feature_dims": 4}), material)()[0].params["v_pos"]
    assert set(mesh.texture) == {"base_color"}
    expected = material(Ball({"n_feature_dims": 4}).features(mesh.vertices)).mean(dim=0)
    torch.testing.assert_close(mesh.texture["base_color"].mean(dim=(0, 1)), expected, atol=0.08, rtol=0)


def test_compositing_keeps_bumps_unit_and_mixes_the_rest():
    class Dense(Ball):
        def forward(self, points, output_normal=False):
            density = 50.0 * (points.norm(dim=-1, keepdim=True) < RADIUS)
            return GeometryOutput(density=density, features=self.features(points))

    material = PBRMaterial({"material_activation": "none"})
    points = torch.nn.functional.normalize(torch.randn(9, 3), dim=-1) * RADIUS
    maps = SurfaceColors(Dense({}), material, 5, 0.05).maps(points, points / RADIUS)
    torch.testing.assert_close((2 * maps["bump"] - 1).norm(dim=-1), torch.ones(9))
    assert (maps["albedo"] - (0.5 + 0.5 * points)).abs().max() < 0.03


def test_vertex_colours_and_bare_shapes():
    ply = exporter(fmt="ply")()[0]
    assert ply.save_name == "model.ply" and not ply.params["v_pos"].texture
    assert ply.params["v_pos"].vertex_colors is not None
    stl = exporter(fmt="stl")()[0].params["v_pos"]
    assert stl.vertex_colors is None and not stl.has_uvs
    bare = exporter(Given({}), Plain({}), save_uv=False)()[0].params["v_pos"]
    assert not bare.has_uvs and bare.vertex_colors is not None


@pytest.mark.parametrize("fmt", ["obj-mtl", "obj", "ply", "stl", "usda", "usdz"])
def test_every_format_comes_back_with_its_frame(tmp_path, fmt):
    if fmt.startswith("usd"):
        pytest.importorskip("pxr")
    geometry = Ball({"n_feature_dims": 3})
    frame = {"up_axis": "y", "units": "cm"}
    cfg = {"fmt": fmt, "max_faces": 200, "texture_size": 16, **frame}
    item = exporter(geometry, Plain({}), **cfg)()[0]
    path = write_mesh(item.params["v_pos"], tmp_path / item.save_name, **item.params["options"])[0]
    found = read_mesh(path)
    low, high = found.vertices.amin(dim=0), found.vertices.amax(dim=0)
    scale = 1.0 if fmt.startswith("usd") else 100.0
    torch.testing.assert_close(high - low, torch.full((3,), 2 * RADIUS * scale), atol=0.03 * scale, rtol=0)
    if fmt != "obj":  # readers give coordinates without a material a texture of their own
        assert bool(found.texture) == (fmt in ("obj-mtl", "usda", "usdz"))
        assert (found.vertex_colors is not None) == (fmt == "ply")


@pytest.mark.parametrize("fmt, suffix", [("usd", ".usdc"), ("usda", ".usda"), ("usdz", ".usdz")])
def test_names_of_scenes(fmt, suffix):
    item = exporter(fmt=fmt, up_axis="y", units="cm", max_faces=300, texture_size=16)()[0]
    assert item.save_name == f"model{suffix}" and item.save_type == "mesh"
    assert item.params["options"] == {"up": "y", "units": "cm", "texture_format": "png"}
    assert set(item.params["v_pos"].texture) == {"base_color", "metallic_roughness", "normal"}


def test_texels_know_the_frame_of_their_surface():
    spots = texels(Given({}).isosurface(), 8)
    assert spots.mask.sum() == len(spots.points) == 32
    torch.testing.assert_close(spots.normals, torch.tensor([[1.0, 0, 0]]).expand(32, 3))
    torch.testing.assert_close(spots.tangents, torch.tensor([[0.0, 1, 0, 1]]).expand(32, 4))


def test_a_material_without_albedo_is_named():
    with pytest.raises(ConfigError, match="Bare"):
        exporter(material=Bare({}))()
    assert exporter(material=Bare({}), fmt="stl")()[0].params["v_pos"].n_faces > 100


def test_nothing_comes_of_the_dummy():
    assert find("dummy-exporter", "exporter") is DummyExporter
    assert DummyExporter({"save_video": True}, Ball({}), Plain({}))() == []


@pytest.mark.parametrize("cfg", [{"up_axis": "x"}, {"units": "parsec"}, {"fmt": "abc"}])
def test_wrong_options_are_named(cfg):
    with pytest.raises(ConfigError, match=next(iter(cfg))):
        exporter(**cfg)


def test_a_custom_mesh_keeps_the_coordinates_of_its_file(tmp_path):
    """Written with an atlas, read as a custom-mesh, exported again: the same atlas."""
    path = exported(tmp_path, max_faces=300)
    grid = {"otype": "HashGrid", "n_levels": 2, "log2_hashmap_size": 8, "base_resolution": 4}
    geometry = CustomMesh(
        {"shape_init": f"mesh:{path}", "shape_init_params": 0.7, "pos_encoding_config": grid}
    )
    given, mesh = read_mesh(path), exporter(geometry, Plain({}), texture_size=32)()[0].params["v_pos"]
    assert torch.equal(mesh.uvs[mesh.uv_faces], given.uvs[given.uv_faces])
    assert torch.equal(mesh.faces, given.faces) and set(mesh.texture) == {"base_color"}
    geometry.set_mesh(Given({}).isosurface().replace(uvs=None, uv_faces=None))
    assert not geometry.isosurface().has_uvs

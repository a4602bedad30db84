"""Fields whose surface and colours are known, exported, read back and compared with the formula."""

import math
from dataclasses import dataclass

import pytest
import torch

from maquette.core.errors import ConfigError, RunFailed
from maquette.core.registry import find
from maquette.io.mesh import read_mesh, write_mesh, write_obj
from maquette.kernels.render_mesh import orbit_batch, render_mesh
from maquette.models.exporters.baking import bake_texture
from maquette.models.exporters.mesh import MeshExporter
from maquette.models.exporters.surface_colors import SurfaceColors
from maquette.models.geometry.base import BaseImplicitGeometry, GeometryOutput
from maquette.models.materials.base import BaseMaterial
from maquette.ops.image import sample_texture
from maquette.ops.mesh import bounding_box, triangles, volume
from maquette.ops.mesh_health import mesh_report

SIZE = (0.6, 0.4, 0.3)
"""Half axes of the ellipsoid along x, y, z."""


class Ellipsoid(BaseImplicitGeometry):
    """Dense inside an ellipsoid and inside a far smaller ball apart from it; colours are 0.5 + position."""

    @dataclass(kw_only=True)
    class Config(BaseImplicitGeometry.Config):
        hidden_colour: float = 0.0
        """How far below the surface the colour begins; above it everything is black."""
        peak: float = 400.0
        """Density inside."""

    def forward(self, points, output_normal=False):
        return GeometryOutput(density=self.forward_density(points), features=self._colours(points))

    def forward_density(self, points):
        scaled = (points / points.new_tensor(SIZE)).norm(dim=-1, keepdim=True)
        ball = (points - 0.8).norm(dim=-1, keepdim=True) / 0.1
        return self.cfg.peak * torch.sigmoid((1.0 - torch.minimum(scaled, ball)) / 0.02)

    def forward_field(self, points):
        return self.forward_density(points), None

    def forward_level(self, field, threshold):
        return threshold - field

    def export(self, points, **kwargs):
        return {"features": self._colours(points)}

    def _colours(self, points):
        below = 0.3 * (1 - (points / points.new_tensor(SIZE)).norm(dim=-1, keepdim=True))
        return (
            torch.where(below >= self.cfg.hidden_colour - 1e-3, 0.5 + points, 0.0)
            if self.cfg.hidden_colour
            else 0.5 + points
        )


class Plain(BaseMaterial):
    def export(self, features, **kwargs):
        return {"albedo": features}


def exporter(geometry=None, **cfg) -> MeshExporter:
    field = {"isosurface_method": "mc", "isosurface_resolution": 40, "isosurface_threshold": 200.0}
    field["isosurface_remove_outliers"] = False
    geometry = Ellipsoid({**field, **(geometry or {})})
    return MeshExporter(
        {"texture_size": 128, "texture_format": "png", "max_faces": 1500, **cfg}, geometry, Plain({})
    )


def exported(path, **cfg):
    item = exporter(**cfg)()[0]
    if item.save_type == "obj":
        names = {"save_mat": "material", "save_normal": "normals", "map_format": "texture_format"}
        options = {names[key]: value for key, value in item.params.items() if key in names}
        return write_obj(item.params["mesh"], path / item.save_name, **options)[0]
    return write_mesh(item.params["v_pos"], path / item.save_name, **item.params["options"])[0]


@pytest.fixture(scope="module")
def asset(tmp_path_factory):
    return read_mesh(exported(tmp_path_factory.mktemp("asset"), color_samples=1))


def test_is_registered():
    assert find("mesh-exporter", "exporter") is MeshExporter


def test_the_asset_is_one_healthy_piece_in_the_right_place(asset):
    report = mesh_report(asset)
    assert report.healthy and report.faces <= 1500
    assert volume(asset).item() == pytest.approx(4 / 3 * math.pi * math.prod(SIZE), rel=0.04)
    expected = torch.tensor([[-s for s in SIZE], SIZE])
    torch.testing.assert_close(bounding_box(asset), expected, atol=0.03, rtol=0)


def test_every_surface_point_reads_its_colour_from_the_texture(asset):
    """Ten points of each face, up to its edges: seams, flips and axes would all show."""
    weights = torch.distributions.Dirichlet(torch.full((3,), 0.5))
    torch.manual_seed(0)
    barycentric = weights.sample((asset.n_faces, 10))
    points = torch.einsum("fnk,fkc->fnc", barycentric, triangles(asset)).reshape(-1, 3)
    uv = torch.einsum("fnk,fkc->fnc", barycentric, asset.uvs[asset.uv_faces]).reshape(-1, 2)
    error = (sample_texture(asset.texture["base_color"], uv) - (0.5 + points).clamp(0, 1)).abs()
    assert error.max() < 0.03
    assert error.mean() < 0.004


def test_rendered_sides_show_the_colours_of_the_field(asset):
    batch = orbit_batch(asset, torch.tensor([0.0, 90.0, 180.0, 270.0]), 33, 0.0)
    centres = render_mesh(asset, batch)["rgb"][:, 16, 16]
    x, y = SIZE[0], SIZE[1]
    expected = 0.5 + torch.tensor([[x, 0, 0], [0, y, 0], [-x, 0, 0], [0, -y, 0]])
    torch.testing.assert_close(centres, expected.clamp(0, 1), atol=0.03, rtol=0)


def test_extras_tell_the_name_and_the_prompt(tmp_path):
    mesh = read_mesh(exported(tmp_path, save_name="toy", extras={"prompt": "an egg"}, max_faces=300))
    assert mesh.extras["name"] == "toy" and mesh.extras["prompt"] == "an egg"
    assert (tmp_path / "toy.glb").is_file()


def test_same_field_same_bytes(tmp_path):
    first, second = (exported(tmp_path / name, max_faces=300) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_pieces_are_kept_on_request(tmp_path):
    surface = exporter(keep_components=0, geometry={"isosurface_resolution": 64}).surface()
    assert mesh_report(surface).components == 2


def test_obj_with_material(tmp_path):
    path = exported(tmp_path, fmt="obj-mtl", max_faces=300)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.mtl", "model.obj", "model_kd.png"]
    assert read_mesh(path).texture["base_color"].shape == (128, 128, 3)


def test_obj_with_vertex_colours(tmp_path):
    item = exporter(fmt="obj", color_samples=1, max_faces=300)()[0]
    mesh = item.params["mesh"]
    assert item.save_type == "obj" and item.params["save_uv"] and item.params["save_vertex_color"]
    torch.testing.assert_close(mesh.vertex_colors, (0.5 + mesh.vertices).clamp(0, 1))


def test_glb_without_texture_has_vertex_colours(tmp_path):
    path = exported(tmp_path, save_texture=False, color_samples=1, max_faces=300)
    mesh = read_mesh(path)
    assert not mesh.texture and not mesh.has_uvs
    torch.testing.assert_close(mesh.vertex_colors, (0.5 + mesh.vertices).clamp(0, 1), atol=1e-5, rtol=0)


def test_colours_below_the_surface_are_found():
    """The field is black down to 0.005 below the surface; a ray gets about 0.03 deep."""
    geometry = {"hidden_colour": 0.005, "peak": 60.0, "isosurface_threshold": 30.0}
    at_surface = exporter(geometry, fmt="obj", save_uv=False, color_samples=1)()[0].params["mesh"]
    through = exporter(geometry, fmt="obj", save_uv=False, color_depth=0.08)()[0].params["mesh"]
    truth = (0.5 + through.vertices).clamp(0, 1)
    assert at_surface.vertex_colors.mean() < 0.02
    assert (through.vertex_colors / truth.clamp(min=0.05)).mean() > 0.4
    hue = torch.nn.functional.cosine_similarity(through.vertex_colors, truth, dim=-1)
    assert hue.median() > 0.99


def test_compositing_along_the_normal_sums_to_one():
    geometry = Ellipsoid({})
    colors = SurfaceColors(geometry, Plain({}), samples=5, depth=0.03)
    points = torch.tensor([[0.6, 0, 0], [0, 0.4, 0], [0.95, -0.95, 0.95]])
    normals = torch.nn.functional.normalize(points, dim=-1)
    constant = colors.material
    constant.export = lambda features, **kwargs: {"albedo": torch.full((len(features), 3), 0.25)}
    torch.testing.assert_close(colors(points, normals), torch.full((3, 3), 0.25))


@pytest.mark.parametrize("size", [64, 100])
def test_no_texel_stays_unpainted(asset, size):
    texture = bake_texture(asset, lambda points, normals: torch.full_like(points, 0.7), size)
    torch.testing.assert_close(texture, torch.full((size, size, 3), 0.7))


def test_baking_in_chunks_changes_nothing(asset):
    def query(points, normals):
        return (points + normals).sin()

    assert torch.equal(bake_texture(asset, query, 64, chunk=100), bake_texture(asset, query, 64))


def test_a_surface_that_cannot_be_simplified_keeps_its_colours_at_the_vertices(monkeypatch):
    monkeypatch.setattr("maquette.models.exporters.mesh.decimate", lambda mesh, n_faces: mesh)
    mesh = exporter(max_faces=100)()[0].params["v_pos"]
    assert not mesh.has_uvs and mesh.vertex_colors.shape == mesh.vertices.shape


def test_an_empty_field_is_a_failed_run():
    with pytest.raises(RunFailed):
        exporter({"isosurface_threshold": 1e6})()


@pytest.mark.parametrize(
    "cfg",
    [{"fmt": "fbx"}, {"texture_format": "tga"}, {"texture_size": 1}, {"max_faces": -1}, {"color_samples": 0}],
)
def test_wrong_options_are_named(cfg):
    with pytest.raises(ConfigError, match=next(iter(cfg))):
        exporter(**cfg)

import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.models.exporters.gaussian_mesh import GaussianMeshExporter
from maquette.models.geometry.gaussian_splatting import GaussianSplatting
from maquette.models.geometry.implicit_volume import ImplicitVolume
from maquette.models.materials.no_material import NoMaterial
from maquette.ops.gaussians import Gaussians, colors_to_sh
from maquette.ops.mesh import bounding_box

MATERIAL = NoMaterial()


@pytest.fixture(scope="module")
def two_colors() -> GaussianSplatting:
    """A ball of radius 0.5, red where x is positive and blue elsewhere."""
    points = torch.nn.functional.normalize(torch.randn(1200, 3), dim=-1) * 0.5
    colors = torch.where(points[:, :1] > 0, torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0]))
    geometry = GaussianSplatting({"isosurface_resolution": 40, "isosurface_blur": 0.5, "radius": 0.7})
    geometry.set_rows(
        Gaussians(
            means=points,
            rotations=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(1200, 4),
            scales=torch.full((1200, 3), 0.03),
            opacities=torch.full((1200,), 0.95),
            sh=colors_to_sh(colors)[:, None],
        )
    )
    return geometry


def test_leaves_a_painted_mesh_and_the_splats(two_colors: GaussianSplatting) -> None:
    exporter = GaussianMeshExporter({"fmt": "glb", "save_texture": False}, two_colors, MATERIAL)
    mesh, splats = exporter()
    assert (mesh.save_name, mesh.save_type) == ("model.glb", "mesh")
    assert (splats.save_name, splats.save_type) == ("model-splats.ply", "splats")
    assert splats.params["gaussians"].n == 1200 and not splats.params["gaussians"].means.requires_grad
    surface = mesh.params["v_pos"]
    low, high = bounding_box(surface)
    torch.testing.assert_close(high, torch.full((3,), 0.53), rtol=0.0, atol=0.06)
    torch.testing.assert_close(low, -high, rtol=0.0, atol=0.05)
    x, colors = surface.vertices[:, 0], surface.vertex_colors
    expected = torch.tensor([1.0, 0.0, 0.0]).expand_as(colors[x > 0.15])
    torch.testing.assert_close(colors[x > 0.15], expected, rtol=0.0, atol=0.05)
    expected = torch.tensor([0.0, 0.0, 1.0]).expand_as(colors[x < -0.15])
    torch.testing.assert_close(colors[x < -0.15], expected, rtol=0.0, atol=0.05)


def test_ecosystem_defaults_and_no_splats(two_colors: GaussianSplatting) -> None:
    exporter = GaussianMeshExporter({"save_splats": False, "save_uv": False}, two_colors, MATERIAL)
    assert exporter.cfg.save_video and [item.save_name for item in exporter()] == ["model.obj"]


def test_needs_gaussians() -> None:
    with pytest.raises(ConfigError, match="gaussian-splatting"):
        GaussianMeshExporter({}, ImplicitVolume(), MATERIAL)

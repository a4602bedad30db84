"""Every representation leaves as one closed, textured piece, in the place where it is."""

import pytest
import torch

from maquette.core.registry import find
from maquette.io.mesh import read_mesh, write_mesh
from maquette.models.exporters.mesh import MeshExporter
from maquette.models.materials.no_material import NoMaterial
from maquette.ops.gaussians import Gaussians, colors_to_sh
from maquette.ops.mesh import bounding_box
from maquette.ops.mesh_health import mesh_report

GRID = {"otype": "HashGrid", "n_levels": 2, "log2_hashmap_size": 8, "base_resolution": 4}
BALL = {"shape_init": "sphere", "shape_init_params": 0.5}
CONFIGS = {
    "implicit-volume": {
        "pos_encoding_config": GRID,
        "density_bias": "blob_magic3d",
        "density_blob_scale": 200.0,
        "density_blob_std": 0.5,
        "isosurface_threshold": 5.0,
        "isosurface_resolution": 32,
        "isosurface_method": "mc",
    },
    "volume-grid": {
        "grid_size": [16, 16, 16],
        "density_blob_scale": 200.0,
        "density_blob_std": 0.5,
        "isosurface_threshold": 5.0,
        "isosurface_resolution": 32,
        "isosurface_method": "mc",
    },
    "implicit-sdf": {"pos_encoding_config": GRID, "sdf_bias": "sphere", "sdf_bias_params": 0.5}
    | {"isosurface_resolution": 32, "isosurface_method": "mc"},
    "tetrahedra-sdf-grid": {"pos_encoding_config": GRID, "isosurface_resolution": 16, **BALL},
    "gaussian-splatting": {"isosurface_resolution": 64},
}


def geometry_of(name):
    geometry = find(name, "geometry")(CONFIGS[name]).eval()
    if name == "gaussian-splatting":
        drawn = torch.randn(1500, 3, generator=torch.Generator().manual_seed(0))
        points = torch.nn.functional.normalize(drawn, dim=-1) * 0.45
        geometry.set_rows(
            Gaussians(
                means=points,
                rotations=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(1500, 4),
                scales=torch.full((1500, 3), 0.04),
                opacities=torch.full((1500,), 0.9),
                sh=colors_to_sh(torch.full((1500, 3), 0.7))[:, None],
            )
        )
    if hasattr(geometry, "initialize_shape"):
        geometry.initialize_shape()
    return geometry


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_ball_leaves_whole(name, tmp_path):
    material = NoMaterial({"color_activation": "sigmoid"})
    cfg = {"texture_size": 64, "texture_format": "png", "max_faces": 800}
    item = MeshExporter(cfg, geometry_of(name), material)()[0]
    mesh = read_mesh(write_mesh(item.params["v_pos"], tmp_path / item.save_name, **item.params["options"])[0])
    report = mesh_report(mesh)
    assert report.healthy and report.faces <= 820 and report.has_texture
    low, high = bounding_box(mesh)
    assert ((high - 0.5).abs() < 0.12).all() and ((low + 0.5).abs() < 0.12).all()
    expected = 0.7 if name == "gaussian-splatting" else 0.5
    assert (mesh.texture["base_color"].mean() - expected).abs() < 0.1

"""Every way from one representation to another that the recipes promise, on a ball."""

from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.core.registry import find
from maquette.models.geometry import density_field, implicit_volume
from maquette.models.geometry.base import BaseGeometry
from maquette.systems.conversion import Origin, converted_geometry

GRID = {
    "otype": "HashGrid", "n_levels": 2, "n_features_per_level": 2, "log2_hashmap_size": 8,
    "base_resolution": 4, "per_level_scale": 2.0,
}  # fmt: skip
NETWORK = {
    "otype": "VanillaMLP", "activation": "ReLU", "output_activation": "none", "n_neurons": 8,
    "n_hidden_layers": 1,
}  # fmt: skip
NETWORKS = {"radius": 1.0, "pos_encoding_config": GRID, "mlp_network_config": NETWORK}
SURFACE = {"isosurface_resolution": 20, "isosurface_threshold": "auto"}
BALLS: dict[str, dict[str, Any]] = {
    "implicit-volume": {**NETWORKS, **SURFACE, "normal_type": None, "density_bias": "blob_magic3d"},
    "volume-grid": {"radius": 1.0, **SURFACE, "grid_size": [20, 20, 20]},
    "implicit-sdf": {
        **NETWORKS, "normal_type": None, "sdf_bias": "sphere", "sdf_bias_params": 0.5,
        "isosurface_resolution": 20,
    },
    "tetrahedra-sdf-grid": {
        **NETWORKS, "isosurface_resolution": 16, "shape_init": "sphere", "shape_init_params": 0.5
    },
    "gaussian-splatting": {
        "radius": 1.0, **SURFACE, "init_num_pts": 500, "pc_init_radius": 0.5, "opacity_init": 0.9
    },
    "custom-mesh": NETWORKS,
}  # fmt: skip
FROM_A_BODY: dict[str, dict[str, Any]] = {
    "volume-grid": {"grid_size": [48, 48, 48], "isosurface_resolution": 48},
    "implicit-volume": {
        "pos_encoding_config": {**GRID, "n_levels": 4, "log2_hashmap_size": 14, "base_resolution": 8},
        "mlp_network_config": {**NETWORK, "n_neurons": 32}, "density_activation": "exp", "density_bias": 0.0,
        "isosurface_resolution": 40,
    },
}  # fmt: skip
"""What a volume needs to hold the border of a body."""
BODIES = ("implicit-sdf", "tetrahedra-sdf-grid", "custom-mesh", "gaussian-splatting")
PAIRS = [
    ("implicit-volume", "implicit-volume"),
    ("implicit-volume", "tetrahedra-sdf-grid"),
    ("implicit-volume", "volume-grid"),
    ("volume-grid", "tetrahedra-sdf-grid"),
    ("implicit-sdf", "tetrahedra-sdf-grid"),
    ("tetrahedra-sdf-grid", "tetrahedra-sdf-grid"),
    ("tetrahedra-sdf-grid", "custom-mesh"),
    ("tetrahedra-sdf-grid", "gaussian-splatting"),
    ("gaussian-splatting", "custom-mesh"),
    ("gaussian-splatting", "tetrahedra-sdf-grid"),
    ("custom-mesh", "implicit-sdf"),
    ("custom-mesh", "tetrahedra-sdf-grid"),
    ("custom-mesh", "gaussian-splatting"),
    ("gaussian-splatting", "implicit-volume"),
    ("gaussian-splatting", "volume-grid"),
    ("gaussian-splatting", "implicit-sdf"),
    ("implicit-volume", "implicit-sdf"),
    ("implicit-sdf", "volume-grid"),
    ("tetrahedra-sdf-grid", "volume-grid"),
    ("custom-mesh", "implicit-volume"),
]


def ball(name: str) -> BaseGeometry:
    """A ball around the origin in each representation."""
    torch.manual_seed(0)
    if name == "custom-mesh":
        return find(name).create_from(ball("tetrahedra-sdf-grid"), BALLS[name])
    return find(name)(BALLS[name])


def origin(name: str) -> Origin:
    state = {f"geometry.{key}": value for key, value in ball(name).state_dict().items()}
    return Origin(Path("run/ckpts/last.ckpt"), {"geometry_type": name, "geometry": BALLS[name]}, state, 0, 5)


@torch.no_grad()
def surface(geometry: BaseGeometry) -> torch.Tensor:
    """Distances of the surface from the origin."""
    return geometry.isosurface().vertices.norm(dim=-1)


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=lambda name: name)
def test_ball_stays_a_ball(before: str, after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density_field, "POOL", 2**15)
    monkeypatch.setattr(implicit_volume, "FIT_POINTS", 2048)
    settings = dict(BALLS[after])
    settings.pop("shape_init", None)
    if before in BODIES and after in FROM_A_BODY:
        settings |= FROM_A_BODY[after]
    if before == after == "tetrahedra-sdf-grid":
        settings["isosurface_resolution"] = 24
    new = converted_geometry(origin(before), after, settings, inherit_texture=True)
    expected = surface(ball(before))
    if after == "gaussian-splatting":
        found = new.gaussians().means.detach().norm(dim=-1)  # they begin on the surface
    else:
        found = surface(new)
    assert isinstance(new, find(after)) and len(found) > 20
    assert found.median() == pytest.approx(float(expected.median()), rel=0.05)
    assert found.std() < 1.5 * expected.std() + 0.02

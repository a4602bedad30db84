"""Unwrapping and remeshing of shapes with known area and volume."""

import math

import numpy as np
import pytest
import torch
import trimesh

from maquette.core.errors import ConfigError
from maquette.io.mesh import is_watertight, mesh_from_trimesh
from maquette.io.remesh import decimate, smooth
from maquette.io.uv import unwrap
from maquette.kernels.uv_raster import rasterize_uv
from maquette.ops.mesh import Mesh, triangles, vertex_normals, volume


@pytest.fixture(scope="module")
def sphere() -> Mesh:
    return mesh_from_trimesh(trimesh.creation.icosphere(subdivisions=3))


@pytest.fixture(scope="module")
def atlas(sphere) -> Mesh:
    return unwrap(sphere, resolution=256)


def test_unwrapping_changes_no_face(sphere, atlas):
    assert torch.equal(triangles(atlas), triangles(sphere))
    assert atlas.uv_faces.shape == sphere.faces.shape
    assert atlas.uvs.min() >= 0 and atlas.uvs.max() <= 1


def test_charts_do_not_overlap(atlas):
    """If no texel is covered twice, the covered share of the picture is the sum of the triangles' areas."""
    a, b, c = atlas.uvs[atlas.uv_faces].unbind(1)
    areas = 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs()
    covered = rasterize_uv(atlas.uvs, atlas.uv_faces, 512, 512).mask.float().mean()
    assert covered.item() == pytest.approx(areas.sum().item(), abs=0.005)
    assert covered > 0.4


def test_stretch_is_small(atlas):
    """Ratio of texture length to surface length, over all edges, stays near one scale."""
    a, b, _ = atlas.uvs[atlas.uv_faces].unbind(1)
    p, q, _ = triangles(atlas).unbind(1)
    ratio = (a - b).norm(dim=-1) / (p - q).norm(dim=-1)
    assert (ratio.quantile(0.95) / ratio.quantile(0.05)).item() < 2.5


def test_unwrapping_is_repeatable(sphere, atlas):
    again = unwrap(sphere, resolution=256)
    assert torch.equal(again.uvs, atlas.uvs) and torch.equal(again.uv_faces, atlas.uv_faces)


def test_options_reach_xatlas(sphere):
    few = unwrap(sphere, chart_options={"max_cost": 100.0}, pack_options={"resolution": 128, "padding": 1})
    many = unwrap(
        sphere, chart_options={"max_chart_area": 0.05}, pack_options={"resolution": 128, "padding": 1}
    )
    assert len(many.uvs) > len(few.uvs)


@pytest.mark.parametrize("options", [{"max_costs": 1.0}, {"max_cost": "cheap"}])
def test_unknown_or_wrong_options_are_named(sphere, options):
    with pytest.raises(ConfigError, match="xatlas_chart_options"):
        unwrap(sphere, chart_options=options)


def test_decimation_keeps_the_shape(sphere):
    simple = decimate(sphere, 400)
    assert 300 < simple.n_faces <= 400
    assert is_watertight(simple)
    assert volume(simple).item() == pytest.approx(4 / 3 * math.pi, rel=0.05)
    assert decimate(sphere, 10_000) is sphere


def test_smoothing_removes_bumps_and_keeps_the_volume(sphere):
    noise = torch.randn(sphere.n_vertices, 1, generator=torch.Generator().manual_seed(0))
    rough = sphere.replace(vertices=sphere.vertices + 0.02 * noise * vertex_normals(sphere))
    smoothed = smooth(rough, 20)
    assert smoothed.vertices.norm(dim=-1).std() < 0.4 * rough.vertices.norm(dim=-1).std()
    assert volume(smoothed).item() == pytest.approx(volume(sphere).item(), rel=0.02)
    assert torch.equal(smoothed.faces, sphere.faces)
    assert smooth(rough, 0) is rough


def test_trimesh_round_trip_keeps_order_and_colours(sphere):
    colours = np.random.default_rng(0).integers(0, 256, (len(sphere.vertices), 3)) / 255
    painted = sphere.replace(vertex_colors=torch.tensor(colours, dtype=torch.float32))
    from maquette.io.mesh import mesh_to_trimesh

    again = mesh_from_trimesh(mesh_to_trimesh(painted))
    assert torch.equal(again.faces, painted.faces)
    torch.testing.assert_close(again.vertex_colors, painted.vertex_colors)

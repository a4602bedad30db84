"""Distances between shapes that are known."""

import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from maquette.core.errors import ConfigError, UserError
from maquette.evaluation.mesh_compare import compare_shapes
from maquette.ops.mesh import Mesh
from maquette.ops.point_cloud import PointCloud, sample_surface

BALL = trimesh.creation.icosphere(3)
MESH = Mesh(torch.tensor(BALL.vertices, dtype=torch.float32), torch.tensor(BALL.faces.copy()))


def test_the_same_shape_twice():
    found = compare_shapes(MESH, MESH, 2000)
    assert found.chamfer == 0 and found.f_score == 1 and found.points == 2000
    assert found.volumes[0] == found.volumes[1] == pytest.approx(BALL.volume, rel=1e-5)
    assert found.diagonal == pytest.approx(12**0.5, rel=0.01)


def test_balls_inside_each_other():
    larger = MESH.replace(vertices=MESH.vertices * 1.1)
    found = compare_shapes(MESH, larger, 20_000, tolerance=0.05)
    assert found.chamfer == pytest.approx(0.1, rel=0.03) and found.f_score == 0
    assert compare_shapes(MESH, larger, 20_000, tolerance=0.15).f_score == 1
    assert found.chamfer_percent == pytest.approx(100 * found.chamfer / found.diagonal)
    assert found.boxes[1][1] == pytest.approx((1.1, 1.1, 1.1), rel=0.02)


def test_distances_are_those_of_a_tree():
    """scipy's k-d tree is the twin."""
    moved = MESH.replace(vertices=MESH.vertices * torch.tensor([1.0, 0.8, 1.3]) + 0.1)
    found = compare_shapes(MESH, moved, 3000, seed=4)
    a, b = (sample_surface(mesh, 3000, 4).points.numpy() for mesh in (MESH, moved))
    there, back = cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]
    assert found.chamfer == pytest.approx((there.mean() + back.mean()) / 2, rel=1e-5)
    shares = [(one <= found.tolerance).mean() for one in (there, back)]
    assert found.f_score == pytest.approx(2 * shares[0] * shares[1] / sum(shares), rel=1e-6)


def test_clouds_take_part():
    cloud = sample_surface(MESH, 5000, seed=9)
    found = compare_shapes(MESH, cloud, 5000)
    assert found.chamfer < 2 * found.spacing and found.volumes[1] is None


def test_nothing_is_refused():
    with pytest.raises(UserError, match="without area"):
        compare_shapes(MESH, Mesh(MESH.vertices, MESH.faces[:0]))
    with pytest.raises(UserError, match="without points"):
        compare_shapes(MESH, PointCloud(torch.zeros(0, 3)))
    for options in ({"n": 0}, {"tolerance": 0.0}):
        with pytest.raises(ConfigError):
            compare_shapes(MESH, MESH, **options)

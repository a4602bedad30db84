"""Fewer faces of a surface full of holes and necks: closed as before, and close to it."""

import pytest
import torch

from maquette.io.remesh import decimate, smooth
from maquette.kernels.isosurface import marching_cubes
from maquette.kernels.mesh_distance import MeshDistance
from maquette.ops.mesh import Mesh, component_labels, face_areas, select_faces, volume
from maquette.ops.mesh_health import is_closed, mesh_report


@pytest.fixture(scope="module")
def sponge() -> Mesh:
    """A ball with tunnels (a gyroid), whose necks a collapse likes to pinch."""
    axis = torch.linspace(-1, 1, 48)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    a, b, c = 8 * x, 8 * y, 8 * z
    gyroid = torch.sin(a) * torch.cos(b) + torch.sin(b) * torch.cos(c) + torch.sin(c) * torch.cos(a)
    level = torch.maximum((x * x + y * y + z * z).sqrt() - 0.8, 0.3 * (gyroid - 0.4))
    vertices, faces = marching_cubes(level, torch.tensor([[-1.0] * 3, [1.0] * 3]))
    return Mesh(vertices, faces, extras={"name": "sponge"})


@pytest.mark.parametrize("n_faces", [8000, 3000, 1000])
def test_a_closed_surface_stays_closed(sponge, n_faces):
    simple = decimate(sponge, n_faces)
    assert is_closed(sponge) and is_closed(simple)
    report = mesh_report(simple)
    assert report.manifold and report.duplicate_faces == 0
    assert 0.9 * n_faces < simple.n_faces < 1.05 * n_faces
    assert component_labels(simple)[1] <= component_labels(sponge)[1]
    assert float(volume(simple)) == pytest.approx(float(volume(sponge)), rel=0.03)
    assert simple.extras == sponge.extras


def test_what_is_left_lies_on_the_surface(sponge):
    simple = decimate(sponge, sponge.n_faces // 2)
    distance = MeshDistance(simple.vertices, simple.faces).nearest(sponge.vertices)[0]
    assert distance.square().mean().sqrt() < 0.003
    assert distance.max() < 0.03


def test_small_meshes_come_back_as_they_are(sponge):
    assert decimate(sponge, sponge.n_faces) is sponge
    assert smooth(sponge, 0) is sponge


def test_an_open_surface_stays_open(sponge):
    half = select_faces(sponge, sponge.vertices[sponge.faces].mean(dim=1)[:, 2] > 0)
    simple = decimate(half, 3000)
    assert not is_closed(simple) and simple.n_faces < 3100


def test_smoothing_takes_bumps_and_keeps_the_volume(sponge):
    noise = 0.005 * torch.randn(sponge.vertices.shape, generator=torch.Generator().manual_seed(0))
    rough = sponge.replace(vertices=sponge.vertices + noise)
    calm = smooth(rough, 6)
    assert face_areas(calm).sum() < 0.97 * face_areas(rough).sum()
    assert float(volume(calm)) == pytest.approx(float(volume(sponge)), rel=0.03)
    assert torch.equal(calm.faces, rough.faces)

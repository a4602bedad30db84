import math

import pytest
import torch

from maquette.kernels.isosurface import marching_cubes
from maquette.ops.mesh import Mesh, edges, volume

BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


def distance(n):
    axis = torch.linspace(-1, 1, n)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).norm(dim=-1)


def is_watertight(mesh):
    return bool((edges(mesh)[1] == 2).all())


def test_sphere():
    mesh = Mesh(*marching_cubes(distance(48) - 0.7, BOX))
    assert is_watertight(mesh)
    assert volume(mesh).item() == pytest.approx(4 / 3 * math.pi * 0.7**3, rel=0.01), (
        "positive: faces look out"
    )
    torch.testing.assert_close(
        mesh.vertices.norm(dim=-1), torch.full((mesh.n_vertices,), 0.7), atol=2e-3, rtol=0
    )


def test_a_box_that_is_not_a_cube_scales_the_mesh():
    box = torch.tensor([[0.0, 0.0, 0.0], [2.0, 4.0, 6.0]])
    mesh = Mesh(*marching_cubes(distance(32) - 0.7, box))
    assert volume(mesh).item() == pytest.approx(4 / 3 * math.pi * 0.7**3 * 6, rel=0.02)


def test_what_sticks_out_is_cut_off_and_closed():
    mesh = Mesh(*marching_cubes(distance(24) - 1.2, BOX))
    assert is_watertight(mesh)
    assert mesh.vertices.abs().max() <= 1.0


def test_a_full_box_is_a_cube():
    mesh = Mesh(*marching_cubes(-torch.ones(32, 32, 32), BOX))
    assert is_watertight(mesh)
    assert volume(mesh).item() == pytest.approx(8.0, rel=0.02)


@pytest.mark.parametrize("close_border", [True, False])
def test_nothing_inside(close_border):
    vertices, faces = marching_cubes(torch.ones(5, 6, 7), BOX, close_border)
    assert vertices.shape == (0, 3) and faces.shape == (0, 3)


def test_the_input_is_left_as_it_was():
    level = -torch.ones(5, 5, 5)
    marching_cubes(level, BOX)
    assert (level == -1).all()

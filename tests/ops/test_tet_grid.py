import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.ops.tet_grid import lattice, outside_at_border, tet_grid

FACES = [[1, 2, 3], [0, 3, 2], [0, 1, 3], [0, 2, 1]]
"""Corners of each face, looking out of a positive tetrahedron."""


def volumes(grid):
    a, b, c, d = grid.vertices.double()[grid.tets].unbind(1)
    return ((b - a) * torch.linalg.cross(c - a, d - a)).sum(-1) / 6


@pytest.mark.parametrize("n", [2, 3, 6])
def test_tetrahedra_fill_the_cube(n):
    grid = lattice(n)
    assert len(grid.tets) == 12 * n**3 and len(grid.vertices) == (n + 1) ** 3 + n**3
    torch.testing.assert_close(volumes(grid), torch.full((12 * n**3,), 1 / (12 * n**3), dtype=torch.float64))


@pytest.mark.parametrize("n", [2, 5])
def test_faces_meet_and_the_rest_is_the_surface_of_the_cube(n):
    grid = lattice(n)
    faces = grid.tets[:, FACES].reshape(-1, 3)
    _, index, counts = torch.unique(faces.sort(1).values, dim=0, return_inverse=True, return_counts=True)
    assert set(counts.tolist()) == {1, 2}
    outer = grid.vertices[faces[counts[index] == 1]]
    on_a_side = ((outer == 0).all(dim=1) | (outer == 1).all(dim=1)).any(dim=1)
    assert on_a_side.all() and len(outer) == 12 * n * n
    a, b, c = outer.unbind(1)
    assert 0.5 * torch.linalg.cross(b - a, c - a).norm(dim=1).sum().item() == pytest.approx(6.0, rel=1e-5)


def test_nothing_is_there_twice():
    grid = lattice(4)
    assert len(torch.unique(grid.vertices, dim=0)) == len(grid.vertices)
    assert len(torch.unique(grid.tets.sort(1).values, dim=0)) == len(grid.tets)
    assert torch.equal(torch.unique(grid.tets), torch.arange(len(grid.vertices)))


@pytest.mark.parametrize(("resolution", "expected"), [(32, 5034), (64, 36562)])
def test_sizes_are_those_that_recipes_expect(resolution, expected):
    assert len(tet_grid(resolution).vertices) == pytest.approx(expected, rel=0.03)


def test_a_grid_is_made_once():
    assert tet_grid(16) is tet_grid(16)


def test_too_coarse_is_refused():
    with pytest.raises(ConfigError, match="isosurface_resolution"):
        tet_grid(3)


def test_the_border_is_put_outside_and_nothing_else_moves():
    grid = lattice(3)
    level = torch.linspace(-2, 1, len(grid.vertices)).requires_grad_()
    closed = outside_at_border(level, grid.border)
    assert (closed[grid.border] > 0).all()
    assert torch.equal(closed[~grid.border], level[~grid.border])
    on_surface = ((grid.vertices == 0) | (grid.vertices == 1)).any(dim=1)
    assert torch.equal(grid.border, on_surface)

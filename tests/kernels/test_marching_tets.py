import importlib.util
import math
from pathlib import Path

import pytest
import torch

from maquette.kernels.marching_tets import crossed_vertices, marching_tetrahedra, ring_tables
from maquette.ops.mesh import Mesh, edges, face_areas, volume, weld
from maquette.ops.tet_grid import lattice, tet_grid


@pytest.fixture(scope="module")
def isosurface_twins():
    path = Path(__file__).with_name("isosurface_twins.py")
    spec = importlib.util.spec_from_file_location("isosurface_twins", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ball(grid, radius=0.35):
    return (grid.vertices - 0.5).norm(dim=1) - radius


def torus(grid):
    x, y, z = (grid.vertices - 0.5).unbind(1)
    return (((x * x + y * y).sqrt() - 0.3).square() + z * z).sqrt() - 0.12


def noise(n):
    grid = lattice(n)
    return grid, torch.randn(len(grid.vertices), generator=torch.Generator().manual_seed(1))


def euler(mesh):
    return mesh.n_vertices - len(edges(mesh)[0]) + mesh.n_faces


def is_closed_and_manifold(mesh):
    """Two faces at each edge, one of each direction, and one fan around each vertex."""
    directed = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    consistent = len(torch.unique(directed, dim=0)) == len(directed)
    return consistent and bool((edges(mesh)[1] == 2).all())


def test_sphere():
    grid = tet_grid(64)
    mesh = Mesh(*marching_tetrahedra(grid.vertices, ball(grid), grid.tets))
    assert is_closed_and_manifold(mesh) and euler(mesh) == 2
    assert volume(mesh).item() == pytest.approx(4 / 3 * math.pi * 0.35**3, rel=0.01), (
        "positive: faces look out"
    )
    assert face_areas(mesh).sum().item() == pytest.approx(4 * math.pi * 0.35**2, rel=0.01)


def test_torus_has_a_hole():
    grid = tet_grid(48)
    mesh = Mesh(*marching_tetrahedra(grid.vertices, torus(grid), grid.tets))
    assert is_closed_and_manifold(mesh) and euler(mesh) == 0
    assert volume(mesh).item() == pytest.approx(2 * math.pi**2 * 0.3 * 0.12**2, rel=0.03)


def test_any_field_gives_a_closed_manifold():
    grid, level = noise(5)
    mesh = Mesh(*marching_tetrahedra(grid.vertices, torch.where(grid.border, 1.0, level), grid.tets))
    assert is_closed_and_manifold(mesh)
    assert torch.equal(torch.unique(mesh.faces), torch.arange(mesh.n_vertices))


def test_values_and_gradients_are_those_of_the_twin(isosurface_twins):
    grid, level = noise(4)
    weight = torch.randn(3, generator=torch.Generator().manual_seed(2))
    found, wanted = [], []
    for function, dtype, to in (
        (marching_tetrahedra, torch.float32, found),
        (isosurface_twins.marching_tetrahedra, torch.float64, wanted),
    ):
        inputs = [t.to(dtype).requires_grad_() for t in (grid.vertices, level.sign() * (level.abs() + 0.1))]
        mesh = Mesh(*function(*inputs, grid.tets))
        # a number that depends on positions, areas and orientation, not on order or on a quad's diagonal
        flux = volume(mesh) + (mesh.vertices.square() * weight.to(dtype)).sum()
        to += [mesh.n_vertices, mesh.n_faces, flux, *torch.autograd.grad(flux, inputs)]
    assert found[:2] == wanted[:2]
    assert found[2].item() == pytest.approx(wanted[2].item(), rel=1e-4)
    for one, other in zip(found[3:], wanted[3:], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4 * other.abs().max().item())


def test_only_crossed_vertices_matter():
    grid, level = noise(4)
    needed = crossed_vertices(level, grid.tets)
    leaf = level.clone().requires_grad_()
    vertices, faces = marching_tetrahedra(grid.vertices, leaf, grid.tets)
    (slope,) = torch.autograd.grad(vertices.square().sum(), leaf)
    assert torch.isin(slope.nonzero()[:, 0], needed).all()
    other = level.sign() * 7.0
    other[needed] = level[needed]
    again = marching_tetrahedra(grid.vertices, other, grid.tets)
    assert torch.equal(again[0], vertices) and torch.equal(again[1], faces)


def test_a_surface_through_vertices_stays_closed():
    """A plane of zeros: three edges meet in one point, so faces without area are in between."""
    grid = lattice(4)
    level = (grid.vertices - 0.5).abs().amax(dim=1) - 0.25
    mesh = Mesh(*marching_tetrahedra(grid.vertices, level, grid.tets))
    assert torch.isfinite(mesh.vertices).all() and is_closed_and_manifold(mesh)
    assert volume(weld(mesh, 1e-6)).item() == pytest.approx(0.125, rel=1e-5)


@pytest.mark.parametrize("value", [1.0, 0.0, float("nan"), -1.0])
def test_nothing_crossed_gives_nothing(value):
    grid = lattice(2)
    level = torch.full((len(grid.vertices),), value, requires_grad=True)
    vertices, faces = marching_tetrahedra(grid.vertices, level, grid.tets)
    assert vertices.shape == (0, 3) and faces.shape == (0, 3)
    vertices.sum().backward()
    assert (level.grad == 0).all()


def test_cases_are_complements_of_each_other():
    inside, outside, count = ring_tables()
    for code in range(1, 15):
        mine = {(int(i), int(o)) for i, o in zip(inside[code], outside[code], strict=True)}
        theirs = {(int(o), int(i)) for i, o in zip(inside[15 - code], outside[15 - code], strict=True)}
        assert len(mine - {(0, 0)}) == count[code] and mine - {(0, 0)} == theirs - {(0, 0)}

import importlib.util
import math
from pathlib import Path

import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.kernels import flexicubes as module
from maquette.kernels.cube_tables import cube_tables
from maquette.kernels.flexicubes import crossed_nodes, flexicubes, grid_nodes
from maquette.ops.mesh import Mesh, component_labels, edges, face_areas, volume

BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


@pytest.fixture(scope="module")
def isosurface_twins():
    path = Path(__file__).with_name("isosurface_twins.py")
    spec = importlib.util.spec_from_file_location("isosurface_twins", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def ball(n, radius=0.7, dtype=torch.float32):
    return grid_nodes((n, n, n), BOX.to(dtype)).norm(dim=-1) - radius


def torus(n):
    x, y, z = grid_nodes((n, n, n), BOX).unbind(-1)
    return (((x * x + y * y).sqrt() - 0.6).square() + z * z).sqrt() - 0.25


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def euler(mesh):
    return mesh.n_vertices - len(edges(mesh)[0]) + mesh.n_faces


def is_closed_and_manifold(mesh):
    """Two faces at each edge, one of each direction, and the faces at each vertex hang together."""
    directed = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    consistent = len(torch.unique(directed, dim=0)) == len(directed)
    return consistent and bool((edges(mesh)[1] == 2).all()) and fans(mesh) == mesh.n_vertices


def fans(mesh):
    """Rings of faces around vertices: corners of faces, those across an edge at the same vertex joined."""
    corner_of = {}
    parent = list(range(3 * mesh.n_faces))

    def root(x):
        while parent[x] != x:
            x = parent[x]
        return x

    for face, corners in enumerate(mesh.faces.tolist()):
        for k in range(3):
            for at, other in ((k, (k + 1) % 3), (k, (k + 2) % 3)):
                key = (corners[at], corners[other])
                if key in corner_of:
                    parent[root(3 * face + at)] = root(corner_of[key])
                corner_of[key] = 3 * face + at
    return len({root(x) for x in range(len(parent))})


def test_sphere():
    mesh = Mesh(*flexicubes(ball(49), BOX)[:2])
    assert is_closed_and_manifold(mesh) and euler(mesh) == 2
    assert volume(mesh).item() == pytest.approx(4 / 3 * math.pi * 0.7**3, rel=0.01), (
        "positive: faces look out"
    )
    assert face_areas(mesh).sum().item() == pytest.approx(4 * math.pi * 0.7**2, rel=0.01)


@pytest.mark.parametrize("centred", [False, True])
def test_torus_has_a_hole(centred):
    mesh = Mesh(*flexicubes(torus(41), BOX, centred=centred)[:2])
    assert is_closed_and_manifold(mesh) and euler(mesh) == 0 and component_labels(mesh)[1] == 1
    assert volume(mesh).item() == pytest.approx(2 * math.pi**2 * 0.6 * 0.25**2, rel=0.02)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("centred", [False, True])
def test_any_field_gives_a_closed_manifold(seed, centred):
    weights = noise(seed + 10, 6, 7, 8, 21)
    mesh = Mesh(*flexicubes(noise(seed, 7, 8, 9), BOX, weights, centred=centred)[:2])
    assert is_closed_and_manifold(mesh)
    assert torch.equal(torch.unique(mesh.faces), torch.arange(mesh.n_vertices))


def test_faces_are_divided_otherwise_where_that_is_needed(monkeypatch):
    level = noise(0, 9, 9, 9)
    monkeypatch.setattr(module, "_without_double_edges", lambda state, *rest: state)
    assert not is_closed_and_manifold(Mesh(*flexicubes(level, BOX)[:2]))


def test_values_and_gradients_are_those_of_the_twin(isosurface_twins):
    inputs = ball(12), noise(6, 11, 11, 11, 21), 0.05 * noise(7, 12, 12, 12, 3)
    found, wanted = [], []
    for function, dtype, to in (
        (flexicubes, torch.float32, found),
        (isosurface_twins.flexicubes, torch.float64, wanted),
    ):
        leaves = [values.to(dtype).requires_grad_() for values in inputs]
        vertices, faces, deviation = function(leaves[0], BOX.to(dtype), *leaves[1:])
        moment = (vertices.square() * noise(5, 3).to(dtype)).sum() + vertices.sin().sum() + 50.0 * deviation
        to += [vertices, len(faces), deviation, *torch.autograd.grad(moment, leaves)]
    assert found[1] == wanted[1]
    torch.testing.assert_close(found[0].double(), wanted[0], rtol=1e-4, atol=1e-5)
    assert found[2].item() == pytest.approx(wanted[2].item(), rel=1e-4)
    for one, other in zip(found[3:], wanted[3:], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4 * other.abs().max().item())


@pytest.mark.parametrize("centred", [False, True])
def test_gradients_are_differences(centred):
    """Of positions and of the regulariser, to level, weights and offsets, with loops of every kind."""
    shape = (5, 5, 6)
    level = torch.full(shape, 0.7, dtype=torch.float64)
    inner = noise(3, 3, 3, 4).double()
    level[1:-1, 1:-1, 1:-1] = inner.sign() * (inner.abs() + 0.2)
    level.requires_grad_()
    weights = noise(4, 4, 4, 5, 21).double().requires_grad_()
    offsets = (0.05 * noise(5, *shape, 3)).double().requires_grad_()

    def surface(level, weights, offsets):
        vertices, _, regulariser = flexicubes(level, BOX.double(), weights, offsets, centred)
        return vertices, regulariser

    torch.autograd.gradcheck(surface, (level, weights, offsets), eps=1e-7, atol=1e-5, fast_mode=True)


def test_weights_of_zero_change_nothing():
    level = ball(9)
    plain, weighted = flexicubes(level, BOX), flexicubes(level, BOX, torch.zeros(8, 8, 8, 21))
    torch.testing.assert_close(weighted[0], plain[0])
    torch.testing.assert_close(weighted[2], plain[2])


def test_offsets_move_the_surface():
    moved = flexicubes(ball(9), BOX, deformation=torch.full((9, 9, 9, 3), 0.1))[0]
    torch.testing.assert_close(moved, flexicubes(ball(9), BOX)[0] + 0.1)


def test_a_box_that_is_not_a_cube_scales_the_mesh():
    box = torch.tensor([[0.0, 0.0, 0.0], [2.0, 4.0, 6.0]])
    mesh = Mesh(*flexicubes(ball(33), box)[:2])
    assert volume(mesh).item() == pytest.approx(4 / 3 * math.pi * 0.7**3 * 6, rel=0.02)


def test_what_sticks_out_is_closed():
    mesh = Mesh(*flexicubes(ball(17, 1.2), BOX)[:2])
    assert is_closed_and_manifold(mesh) and mesh.vertices.abs().max() <= 1.0


@pytest.mark.parametrize("centred", [False, True])
def test_nothing_inside(centred):
    level = torch.ones(5, 6, 7, requires_grad=True)
    vertices, faces, regulariser = flexicubes(level, BOX, torch.zeros(4, 5, 6, 21), centred=centred)
    assert vertices.shape == (0, 3) and faces.shape == (0, 3) and regulariser == 0
    (vertices.sum() + regulariser).backward()
    assert (level.grad == 0).all()


def test_only_crossed_nodes_matter():
    level = noise(1, 6, 6, 6)
    for axis in range(3):
        for end in (0, -1):
            level.select(axis, end).fill_(1.0)
    needed = crossed_nodes(level)
    other = (level.sign() * 3.0).flatten()
    other[needed] = level.flatten()[needed]
    assert torch.equal(flexicubes(other.reshape(6, 6, 6), BOX)[0], flexicubes(level, BOX)[0])


def test_cases_and_their_complements_have_the_same_loops_when_faces_are_divided_the_other_way():
    tables = cube_tables(torch.device("cpu"))
    case = torch.arange(256)
    loops = tables.n_loops.reshape(256, 64)
    assert torch.equal(loops[case, 0], loops[255 - case, 63])
    assert loops.max() == 4 and (loops[1:255] > 0).all()
    assert (loops[case, 0] >= loops[case, 63]).sum() > 128, "cutting corners off makes more loops"


@pytest.mark.parametrize(
    ("level", "weights", "deformation", "named"),
    [
        (torch.ones(1, 4, 4), None, None, "level"),
        (torch.ones(4, 4, 4), torch.zeros(4, 4, 4, 21), None, "weights"),
        (torch.ones(4, 4, 4), None, torch.zeros(3, 3, 3, 3), "deformation"),
    ],
)
def test_another_grid_is_refused(level, weights, deformation, named):
    with pytest.raises(ConfigError, match=named):
        flexicubes(level, BOX, weights, deformation)

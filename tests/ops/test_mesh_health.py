"""Open, doubled and overlapping: each fault is counted as it is."""

import json

import pytest
import torch

from maquette.io.mesh_report import write_report
from maquette.ops.mesh import Mesh
from maquette.ops.mesh_health import is_closed, mesh_report, open_edges, uv_overlap

TETRAHEDRON = Mesh(
    torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]]),
)
SQUARE = Mesh(
    torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]),
    torch.tensor([[0, 1, 2], [0, 2, 3]]),
    uvs=torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]]),
    uv_faces=torch.tensor([[0, 1, 2], [0, 2, 3]]),
)


def test_closed_means_two_faces_that_agree():
    assert is_closed(TETRAHEDRON)
    assert not is_closed(Mesh(TETRAHEDRON.vertices, TETRAHEDRON.faces[:3]))
    turned = TETRAHEDRON.faces.clone()
    turned[0] = turned[0].flip(0)
    assert not is_closed(Mesh(TETRAHEDRON.vertices, turned))
    assert not is_closed(Mesh(TETRAHEDRON.vertices, TETRAHEDRON.faces[:0]))


def test_bodies_that_touch_along_an_edge_are_not_open():
    mirrored = Mesh(TETRAHEDRON.vertices * torch.tensor([1.0, -1, -1]), TETRAHEDRON.faces)
    both = Mesh(
        torch.cat([TETRAHEDRON.vertices, mirrored.vertices]),
        torch.cat([TETRAHEDRON.faces, mirrored.faces + 4]),
    )
    report = mesh_report(both)
    assert report.non_manifold_edges == 1 and report.boundary_edges == 0 and report.holes == 0
    assert not report.manifold and not report.closed and report.components == 1


def test_holes_are_rims():
    assert open_edges(Mesh(TETRAHEDRON.vertices, TETRAHEDRON.faces[1:])).tolist() == [[0, 1], [0, 2], [1, 2]]
    grid = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    points = torch.nn.functional.pad(grid.float(), (0, 1))
    quads = [(i * 4 + j, i * 4 + 4 + j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    faces = torch.tensor([t for a, b in quads for t in ((a, b, a + 1), (a + 1, b, b + 1))])
    report = mesh_report(Mesh(points, faces))
    assert report.holes == 2 and report.boundary_edges == 16 and report.manifold


def test_doubled_faces_count_either_way_round():
    faces = torch.cat([TETRAHEDRON.faces, TETRAHEDRON.faces[:1].roll(1, 1), TETRAHEDRON.faces[1:2].flip(1)])
    report = mesh_report(Mesh(TETRAHEDRON.vertices, faces))
    assert report.duplicate_faces == 2 and report.non_manifold_edges == 5 and not report.healthy


def test_an_atlas_without_overlap():
    assert uv_overlap(SQUARE) == 0.0
    assert uv_overlap(TETRAHEDRON) is None


@pytest.mark.parametrize(("shift", "share"), [(0.0, 1.0), (0.5, 1 / 3), (1.0, 0.0)])
def test_overlap_is_the_share_of_texels(shift, share):
    two = SQUARE.replace(
        uvs=torch.cat([SQUARE.uvs * 0.5, SQUARE.uvs * 0.5 + torch.tensor([shift * 0.5, 0.0])]),
        faces=SQUARE.faces.repeat(2, 1),
        uv_faces=torch.cat([SQUARE.uv_faces, SQUARE.uv_faces.flip(1) + 4]),
        texture={"base_color": torch.zeros(64, 64, 3)},
    )
    assert uv_overlap(two) == pytest.approx(share, abs=0.03)


def test_overlap_of_many_whole_pictures_is_measured_coarsely():
    many = SQUARE.replace(faces=SQUARE.faces.repeat(500, 1), uv_faces=SQUARE.uv_faces.repeat(500, 1))
    assert uv_overlap(many) == 1.0


def test_coordinates_that_are_nothing():
    for uvs in (torch.full((4, 2), torch.nan), torch.zeros(4, 2), SQUARE.uvs + 7.0):
        assert uv_overlap(SQUARE.replace(uvs=uvs)) == 0.0


def test_the_report_lies_beside_the_file(tmp_path):
    painted = SQUARE.replace(texture={"base_color": torch.zeros(8, 4, 3)})
    path = write_report(painted, tmp_path / "toy.glb")
    report = json.loads(path.read_text())
    assert path.name == "toy.report.json" and report["file"] == "toy.glb"
    assert report["textures"] == {"base_color": [8, 4, 3]} and report["uv_overlap"] == 0.0
    assert report["healthy"] is False and report["boundary_edges"] == 4


def test_nothing_has_a_report():
    report = mesh_report(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long)))
    assert (report.faces, report.components, report.holes, report.closed, report.healthy) == (
        0,
        0,
        0,
        False,
        False,
    )

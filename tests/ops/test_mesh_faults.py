"""The report of meshes with known faults."""

import pytest
import torch

from maquette.ops.mesh import Mesh
from maquette.ops.mesh_health import mesh_report

QUADS = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]


def box(offset: float = 0.0) -> Mesh:
    corners = torch.tensor([[x, y, z] for z in (0.0, 3.0) for y in (0.0, 2.0) for x in (0.0, 1.0)])
    faces = torch.tensor([t for a, b, c, d in QUADS for t in ((a, b, c), (a, c, d))])
    return Mesh(corners + offset, faces)


def test_a_box_is_healthy():
    report = mesh_report(box())
    assert report.healthy and report.closed and report.manifold
    assert (report.vertices, report.faces, report.components) == (8, 12, 1)
    assert report.volume == pytest.approx(6.0) and report.area == pytest.approx(22.0)
    assert report.bounding_box == ((0, 0, 0), (1, 2, 3))
    assert report.as_dict()["healthy"] is True and report.as_dict()["has_texture"] is False


def test_a_hole_is_seen():
    report = mesh_report(Mesh(box().vertices, box().faces[1:]))
    assert not report.closed and report.manifold and report.boundary_edges == 3 and not report.healthy


def test_inside_out_is_seen():
    report = mesh_report(Mesh(box().vertices, box().faces.flip(1)))
    assert report.closed and report.volume < 0 and not report.healthy


def test_pieces_and_fins_are_seen():
    two = Mesh(torch.cat([box().vertices, box(9.0).vertices]), torch.cat([box().faces, box().faces + 8]))
    assert mesh_report(two).components == 2 and mesh_report(two).closed and not mesh_report(two).healthy
    fin = Mesh(
        torch.cat([box().vertices, torch.tensor([[0.5, -1.0, -1.0]])]),
        torch.cat([box().faces, torch.tensor([[0, 1, 8]])]),
    )
    assert not mesh_report(fin).manifold and not mesh_report(fin).closed


def test_degenerate_faces_are_counted():
    faces = torch.cat([box().faces, torch.tensor([[0, 0, 1], [2, 2, 2]])])
    assert mesh_report(Mesh(box().vertices, faces)).degenerate_faces == 2


def test_split_seams_are_no_holes():
    mesh = box()
    soup = Mesh(mesh.vertices[mesh.faces].reshape(-1, 3), torch.arange(36).reshape(12, 3))
    assert mesh_report(soup).healthy

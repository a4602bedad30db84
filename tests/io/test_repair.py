"""Broken surfaces become closed ones; a solid modeller that shares nothing with the repair judges."""

import manifold3d
import numpy as np
import pytest
import torch
import trimesh

from maquette.core.errors import RunFailed
from maquette.io.repair import closed, open_places, repaired
from maquette.ops.mesh import Mesh, volume, weld
from maquette.ops.mesh_health import mesh_report


def from_trimesh(solid: trimesh.Trimesh) -> Mesh:
    return Mesh(torch.tensor(solid.vertices, dtype=torch.float32), torch.tensor(np.array(solid.faces)))


BALL = from_trimesh(trimesh.creation.icosphere(2))
BOX = from_trimesh(trimesh.creation.box())


def is_solid(mesh: Mesh) -> bool:
    """The answer of manifold3d, and whether it stays after vertices are welded by position."""
    mesh = weld(mesh)
    made = manifold3d.Mesh(mesh.vertices.numpy(), mesh.faces.numpy().astype(np.uint32))
    report = mesh_report(mesh)
    return manifold3d.Manifold(made).status() == manifold3d.Error.NoError and report.closed


def joined(*meshes: Mesh) -> Mesh:
    offsets = np.cumsum([0] + [mesh.n_vertices for mesh in meshes])
    faces = [mesh.faces + int(offset) for mesh, offset in zip(meshes, offsets, strict=False)]
    return Mesh(torch.cat([mesh.vertices for mesh in meshes]), torch.cat(faces))


def moved(mesh: Mesh, *by: float) -> Mesh:
    return mesh.replace(vertices=mesh.vertices + torch.tensor(by))


def test_what_is_whole_stays_as_it_is():
    mended, report = repaired(BALL)
    assert torch.equal(mended.faces, BALL.faces) and torch.equal(mended.vertices, BALL.vertices)
    assert report.closed and str(report) == "nothing to mend; closed"


def test_a_soup_of_triangles_is_welded():
    soup = Mesh(BALL.vertices[BALL.faces].reshape(-1, 3), torch.arange(3 * BALL.n_faces).reshape(-1, 3))
    mended, report = repaired(soup)
    assert is_solid(mended) and mended.n_vertices == BALL.n_vertices and report.filled_holes == 0
    assert report.welded_vertices == soup.n_vertices - BALL.n_vertices


def test_positions_that_were_rounded_are_welded():
    noise = 1e-7 * torch.rand(3 * BALL.n_faces, 3, generator=torch.Generator().manual_seed(0))
    soup = Mesh(
        BALL.vertices[BALL.faces].reshape(-1, 3).round(decimals=5) + noise,
        torch.arange(3 * BALL.n_faces).reshape(-1, 3),
    )
    assert is_solid(repaired(soup)[0]) and repaired(soup)[0].n_faces == BALL.n_faces


@pytest.mark.parametrize("gone", [1, 7, 40])
def test_holes_are_filled(gone):
    """Faces next to each other, a hole of many corners; the ball's volume is nearly what it was."""
    near = (BALL.vertices[BALL.faces].mean(dim=1) - BALL.vertices[0]).norm(dim=1).argsort()
    mended, report = repaired(Mesh(BALL.vertices, BALL.faces[near[gone:].sort().values]))
    assert is_solid(mended) and report.filled_holes == 1 and 0 < report.added_faces <= gone
    assert float(volume(mended)) == pytest.approx(float(volume(BALL)), rel=0.002 + 0.003 * gone)


def test_many_holes_that_touch_are_filled():
    draw = torch.Generator().manual_seed(3)
    kept = torch.rand(BALL.n_faces, generator=draw) > 0.1
    mended, report = repaired(Mesh(BALL.vertices, BALL.faces[kept]))
    assert is_solid(mended) and report.filled_holes > 10
    assert float(volume(mended)) == pytest.approx(float(volume(BALL)), rel=0.2)


def test_an_open_box_gets_its_lid_back():
    lid = (BOX.vertices[BOX.faces][..., 2] > 0.4).all(dim=1)
    mended, report = repaired(Mesh(BOX.vertices, BOX.faces[~lid]))
    assert is_solid(mended) and report.added_faces == 2
    assert float(volume(mended)) == pytest.approx(1.0)


def test_faces_are_turned_outwards():
    draw = torch.rand(BALL.n_faces, generator=torch.Generator().manual_seed(0)) > 0.5
    mixed = Mesh(BALL.vertices, torch.where(draw[:, None], BALL.faces.flip(1), BALL.faces))
    for broken in (mixed, Mesh(BALL.vertices, BALL.faces.flip(1))):
        mended, report = repaired(broken)
        assert is_solid(mended) and report.turned_faces > 0
        assert float(volume(mended)) == pytest.approx(float(volume(BALL)))


def test_a_cavity_stays_one():
    hollow = joined(BALL, Mesh(BALL.vertices * 0.5, BALL.faces.flip(1)))
    assert float(volume(repaired(hollow)[0])) == pytest.approx(float(volume(BALL)) * 0.875)


def test_doubled_and_empty_faces_go():
    faces = torch.cat([BALL.faces, BALL.faces[:3].roll(1, 1), torch.tensor([[0, 0, 1], [5, 5, 5]])])
    mended, report = repaired(Mesh(BALL.vertices, faces))
    assert torch.equal(mended.faces, BALL.faces) and report.removed_faces == 5


def test_fins_of_zero_thickness_go():
    """What an edge collapse leaves of a thin place: two faces back to back."""
    fin = torch.tensor([[0, 1, BALL.n_vertices], [1, 0, BALL.n_vertices]])
    tip = torch.cat([BALL.vertices, torch.tensor([[0.0, 0.0, 3.0]])])
    mended, report = repaired(Mesh(tip, torch.cat([BALL.faces, fin])))
    assert torch.equal(mended.faces, BALL.faces) and report.removed_faces == 2 and report.added_faces == 0


def test_boxes_that_touch_along_an_edge_are_parted():
    mended, report = repaired(joined(BOX, moved(BOX, 1.0, 1.0, 0.0)))
    assert is_solid(mended) and mesh_report(mended).components == 2 and report.split_vertices == 2
    assert float(volume(mended)) == pytest.approx(2.0, rel=0.02)


def test_boxes_that_touch_in_a_corner_are_parted():
    mended, report = repaired(joined(BOX, moved(BOX, 1.0, 1.0, 1.0)))
    assert is_solid(mended) and report.split_vertices <= 1 and mended.n_faces == 24


def test_stacked_boxes_lose_the_wall_between_them():
    mended, _ = repaired(joined(BOX, moved(BOX, 0.0, 0.0, 1.0)))
    assert is_solid(mended) and float(volume(mended)) == pytest.approx(2.0, rel=0.02)


def test_colors_and_coordinates_stay():
    lid = (BOX.vertices[BOX.faces][..., 2] > 0.4).all(dim=1)
    painted = Mesh(
        BOX.vertices, BOX.faces[~lid], BOX.vertices + 0.5, BOX.vertices[:, :2], BOX.faces[~lid].clone()
    )
    mended, _ = repaired(painted)
    assert torch.equal(mended.vertex_colors, mended.vertices + 0.5)
    assert torch.equal(mended.uvs[mended.uv_faces], mended.vertices[mended.faces][..., :2])


@pytest.mark.parametrize("seed", range(6))
def test_random_triangles_become_closed_or_nothing(seed):
    """Whatever they are: what encloses something is closed, also for who welds positions; the rest goes."""
    draw = torch.Generator().manual_seed(seed)
    faces = torch.randint(0, 12, (25, 3), generator=draw)
    mended, report = repaired(Mesh(torch.randn(12, 3, generator=draw).round(decimals=seed % 3), faces))
    assert (report.closed and mesh_report(mended).closed) or mended.n_faces == 0


def test_nothing_is_refused():
    with pytest.raises(RunFailed, match="could not be closed"):
        closed(Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.long)))


def test_not_a_number_is_refused():
    with pytest.raises(RunFailed, match="not finite"):
        repaired(Mesh(BALL.vertices * torch.nan, BALL.faces))


def test_open_places_are_named():
    assert open_places(BALL) == []
    lines = open_places(Mesh(BALL.vertices, BALL.faces[1:]))
    assert lines[0] == "open edges: 3, around 1 holes" and "near: (" in lines[2]

"""First hits of rays against answers known by hand and against a plain search over all faces."""

import math

import pytest
import torch
import trimesh

from maquette.kernels.raycast import RayMesh

SQUARE = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
SQUARE_FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])


def brute_force(vertices, faces, origins, directions):
    """Moller and Trumbore 1997 for every pair of ray and face: distance and face."""
    a, b, c = vertices[faces].unbind(1)
    e1, e2 = b - a, c - a
    p = torch.linalg.cross(directions[:, None], e2[None], dim=-1)
    det = (p * e1).sum(-1)
    s = origins[:, None] - a
    u = (s * p).sum(-1) / det
    q = torch.linalg.cross(s, e1[None].expand_as(s), dim=-1)
    v = (directions[:, None] * q).sum(-1) / det
    t = (e2 * q).sum(-1) / det
    t = torch.where((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0), t, torch.inf)
    return t.min(-1)


def test_a_square_seen_from_above():
    origins = torch.tensor([[0.5, -0.25, 2.0], [3.0, 0, 2]])
    directions = torch.tensor([[0.0, 0, -1], [0, 0, -1]])
    hits = RayMesh(SQUARE, SQUARE_FACES).cast(origins, directions)
    assert hits.mask.tolist() == [True, False]
    assert hits.t.tolist() == [2.0, math.inf]
    assert hits.face.tolist() == [0, -1]
    torch.testing.assert_close(hits.normal, torch.tensor([[0.0, 0, 1], [0, 0, 0]]))


def test_both_sides_count_and_normals_face_the_ray():
    hits = RayMesh(SQUARE, SQUARE_FACES).cast(torch.tensor([[0.0, 0.5, -1.0]]), torch.tensor([[0.0, 0, 2]]))
    assert hits.t.item() == pytest.approx(0.5)
    assert hits.normal[0].tolist() == [0.0, 0.0, -1.0]


def test_interpolation_gives_the_point_that_was_hit():
    generator = torch.Generator().manual_seed(0)
    ball = trimesh.creation.icosphere(subdivisions=2)
    vertices, faces = torch.tensor(ball.vertices).float(), torch.tensor(ball.faces)
    directions = torch.randn(64, 3, generator=generator)
    origins = torch.zeros(64, 3)
    hits = RayMesh(vertices, faces).cast(origins, directions)
    assert bool(hits.mask.all())
    torch.testing.assert_close(
        hits.interpolate(vertices, faces), hits.t[:, None] * directions, atol=1e-5, rtol=0
    )


def test_interpolation_is_zero_where_nothing_was_hit():
    hits = RayMesh(SQUARE, SQUARE_FACES).cast(torch.tensor([[5.0, 5, 5]]), torch.tensor([[0.0, 0, 1]]))
    assert hits.interpolate(torch.ones(4, 2), SQUARE_FACES).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("batch", [1, 3])
def test_agrees_with_a_search_over_all_faces(batch):
    generator = torch.Generator().manual_seed(1)
    vertices = torch.randn(30, 3, generator=generator)
    faces = torch.randint(0, 30, (40, 3), generator=generator)
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])]
    origins = 3 * torch.randn(200 * batch, 3, generator=generator)
    directions = -origins + torch.randn(200 * batch, 3, generator=generator)
    expected = brute_force(vertices.double(), faces, origins.double(), directions.double())
    hits = RayMesh(vertices, faces).cast(origins, directions)
    torch.testing.assert_close(hits.t.double(), expected.values, atol=1e-4, rtol=1e-4)
    assert torch.equal(hits.face[hits.mask].long(), expected.indices[hits.mask])

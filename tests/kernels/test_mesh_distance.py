"""Distances to a mesh against every face in float64, and against shapes whose distance is known."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import trimesh

from maquette.core.errors import ConfigError
from maquette.kernels.mesh_distance import MeshDistance

TWINS = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("distance_twins.py"))))


def mesh_of(shape):
    return torch.tensor(shape.vertices).float(), torch.tensor(shape.faces)


def ball(subdivisions=2):
    return mesh_of(trimesh.creation.icosphere(subdivisions=subdivisions))


def torus():
    return mesh_of(trimesh.creation.torus(0.7, 0.3, major_sections=20, minor_sections=12))


def queries(n=300, seed=0, scale=1.0):
    return scale * torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def box_distance(points, half):
    """Signed distance to a box around the origin."""
    beyond = points.abs() - half
    return beyond.clamp(min=0).norm(dim=-1) + beyond.amax(-1).clamp(max=0)


@pytest.mark.parametrize("shape", [ball, torus])
@pytest.mark.parametrize("copies", [1, 3])
def test_signed_distance_is_that_of_all_faces(shape, copies):
    vertices, faces = shape()
    points = queries(100 * copies)
    ours = MeshDistance(vertices, faces).signed(points)
    expected = TWINS.signed_distance(points.double(), vertices.double(), faces)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-6)


def test_signed_distance_to_a_box_is_known():
    half = torch.tensor([0.5, 0.3, 0.8])
    points = queries()
    distance = MeshDistance(*mesh_of(trimesh.creation.box(extents=(2 * half).tolist()))).signed(points)
    torch.testing.assert_close(distance, box_distance(points, half), rtol=1e-4, atol=1e-6)


def test_the_nearest_place_is_on_the_face_and_as_far_as_said():
    vertices, faces = torus()
    points = queries()
    distance, face, barycentric = MeshDistance(vertices, faces).nearest(points)
    weights = torch.cat([barycentric, 1 - barycentric.sum(-1, keepdim=True)], -1)
    assert bool((weights >= -1e-5).all())
    place = (vertices[faces[face]] * weights[..., None]).sum(1)
    torch.testing.assert_close((points - place).norm(dim=-1), distance)
    expected = TWINS.mesh_distance(points.double(), vertices.double(), faces)
    torch.testing.assert_close(distance.double(), expected, rtol=1e-4, atol=1e-6)


def test_gradients_to_points_and_vertices_are_those_of_the_twin():
    vertices, faces = torus()
    points = queries(200)
    grads = []
    for kind in (torch.float32, torch.float64):
        inputs = [one.to(kind).requires_grad_() for one in (points, vertices)]
        if kind == torch.float32:
            value = MeshDistance(inputs[1], faces).nearest(inputs[0])[0]
        else:
            value = TWINS.mesh_distance(*inputs, faces)
        grads.append(torch.autograd.grad((value * torch.linspace(-1, 1, len(points))).sum(), inputs))
    for ours, expected in zip(*grads, strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=1e-3, atol=1e-4)
        assert torch.cosine_similarity(ours.double().flatten(), expected.flatten(), dim=0) > 0.9999


def test_the_gradient_of_a_signed_distance_has_length_one_and_points_outwards():
    points = queries(200).requires_grad_()
    slope = torch.autograd.grad(MeshDistance(*ball(3)).signed(points).sum(), points)[0]
    torch.testing.assert_close(slope.norm(dim=-1), torch.ones(200), rtol=1e-4, atol=1e-4)
    assert bool(((slope * points).sum(-1) > 0).all())


@pytest.mark.parametrize("shape", [ball, torus])
def test_winding_number_is_that_of_the_twin(shape):
    vertices, faces = shape()
    points = queries()
    for kept in (faces, faces[: len(faces) // 2]):
        ours = MeshDistance(vertices, kept).winding_number(points)
        expected = TWINS.winding_number(points.double(), vertices.double(), kept)
        torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-5)


def test_an_open_mesh_has_an_inside_where_it_goes_around_more_than_half():
    vertices, faces = ball()
    cap = vertices[faces].mean(1)[:, 2] < 0.8
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.3], [0.0, 0.0, -1.2]])
    distance = MeshDistance(vertices, faces[cap]).signed(points)
    assert distance.sign().tolist() == [-1.0, 1.0, 1.0]


def test_a_mesh_inside_out_has_no_inside():
    vertices, faces = ball()
    assert bool((MeshDistance(vertices, faces.flip(-1)).signed(queries()) > 0).all())


def test_faces_without_area_do_no_harm():
    vertices, faces = ball()
    points = queries(50)
    whole = MeshDistance(vertices, faces).signed(points)
    spiked = MeshDistance(vertices, torch.cat([faces, torch.tensor([[0, 0, 0], [1, 2, 1]])])).signed(points)
    torch.testing.assert_close(spiked, whole)


def test_no_points_give_no_answers():
    mesh = MeshDistance(*ball())
    assert mesh.signed(torch.zeros(0, 3)).shape == mesh.winding_number(torch.zeros(0, 3)).shape == (0,)


@pytest.mark.parametrize(
    ("vertices", "faces", "points", "key"),
    [
        (torch.zeros(3, 3), torch.zeros(0, 3).long(), None, "mesh_distance.faces"),
        (torch.full((3, 3), torch.nan), torch.tensor([[0, 1, 2]]), None, "mesh_distance.vertices"),
        (torch.eye(3), torch.tensor([[0, 1, 3]]), None, "mesh_distance.faces"),
        (torch.eye(3), torch.tensor([[0, 1, -1]]), None, "mesh_distance.faces"),
        (torch.eye(3), torch.tensor([[0, 1, 2]]), torch.full((2, 3), torch.nan), "mesh_distance.points"),
        (torch.eye(3), torch.tensor([[0, 1, 2]]), torch.full((2, 3), 1e12), "mesh_distance.points"),
    ],
)
def test_what_has_no_distance_is_refused(vertices, faces, points, key):
    with pytest.raises(ConfigError) as caught:
        MeshDistance(vertices, faces).signed(points)
    assert caught.value.key == key

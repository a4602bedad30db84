import pytest
import torch

from maquette.ops.mesh import Mesh, vertex_normals
from maquette.ops.tangents import (
    bitangent_of,
    east_of,
    from_tangent_space,
    mesh_tangents,
    orthogonal_tangent,
    to_tangent_space,
)


def normals(n=50):
    drawn = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(drawn, dim=-1)


def quad(mirrored=False, uvs=True):
    """A square in the plane x = 1 seen from +x: u along +y, v along +z; or u along -y."""
    vertices = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    plane = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    if mirrored:
        plane = plane * torch.tensor([-1.0, 1.0]) + torch.tensor([1.0, 0.0])
    return Mesh(vertices, faces, uvs=plane if uvs else None, uv_faces=faces if uvs else None)


def test_east_is_level_and_north_is_up():
    n = normals()
    east = east_of(n)
    north = bitangent_of(n, east)
    torch.testing.assert_close(east[:, 2], torch.zeros(50))
    torch.testing.assert_close((east * n).sum(-1), torch.zeros(50), atol=1e-6, rtol=0)
    torch.testing.assert_close(east.norm(dim=-1), torch.ones(50))
    assert (north[:, 2] > 0).all()
    torch.testing.assert_close(east_of(torch.tensor([1.0, 0, 0])), torch.tensor([0.0, 1, 0]))


def test_vertical_normals_have_a_frame_with_finite_gradients():
    n = torch.tensor([[0.0, 0, 1], [0, 0, -1], [0, 0, 0]], requires_grad=True)
    east = east_of(n)
    torch.testing.assert_close(east.detach(), torch.tensor([[0.0, 1, 0]]).expand(3, 3))
    east.sum().backward()
    assert n.grad is None or torch.isfinite(n.grad).all()


@pytest.mark.parametrize("sign", [None, 1.0, -1.0])
def test_there_and_back(sign):
    n = normals()
    tangent = east_of(n)
    if sign is not None:
        tangent = torch.cat([tangent, torch.full((50, 1), sign)], dim=-1)
    local = normals(50).flip(0)
    world = from_tangent_space(local, n, tangent)
    torch.testing.assert_close(to_tangent_space(world, n, tangent), local, atol=1e-6, rtol=0)
    straight = torch.tensor([0.0, 0, 1]).expand(50, 3)
    torch.testing.assert_close(from_tangent_space(straight, n, tangent), n)


@pytest.mark.parametrize("mirrored", [False, True])
def test_textured_frames_follow_u_and_v(mirrored):
    mesh = quad(mirrored)
    tangents, index = mesh_tangents(mesh)
    assert tangents.shape == (4, 4) and torch.equal(index, mesh.faces)
    along_u = torch.tensor([0.0, -1, 0]) if mirrored else torch.tensor([0.0, 1, 0])
    torch.testing.assert_close(tangents[:, :3], along_u.expand(4, 3))
    upwards = bitangent_of(vertex_normals(mesh), tangents)
    torch.testing.assert_close(upwards, torch.tensor([0.0, 0, 1]).expand(4, 3))
    assert (tangents[:, 3] == (-1.0 if mirrored else 1.0)).all()


def test_corners_with_different_coordinates_have_tangents_of_their_own():
    mesh = quad()
    mesh = mesh.replace(
        uvs=torch.cat([mesh.uvs, mesh.uvs.flip(1)]), uv_faces=torch.tensor([[0, 1, 2], [4, 6, 7]])
    )
    tangents, index = mesh_tangents(mesh)
    assert tangents.shape == (6, 4)
    torch.testing.assert_close(tangents[index[0], :3], torch.tensor([[0.0, 1, 0]]).expand(3, 3))
    torch.testing.assert_close(tangents[index[1], :3], torch.tensor([[0.0, 0, 1]]).expand(3, 3))


def test_mirrored_halves_that_share_their_seam_do_not_cancel():
    """Two squares in the plane x = 0, with u away from the edge y = 0 that both have in the texture, too."""
    vertices = torch.tensor([[0.0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [0, -1, 0], [0, -1, 1]])
    faces = torch.tensor([[0, 2, 3], [0, 3, 1], [4, 0, 1], [4, 1, 5]])
    mesh = Mesh(vertices, faces, uvs=vertices[:, 1:].abs(), uv_faces=faces)
    tangents, index = mesh_tangents(mesh)
    for rows, sign in ((index[:2], 1.0), (index[2:], -1.0)):
        torch.testing.assert_close(tangents[rows], torch.tensor([0.0, sign, 0, sign]).expand(2, 3, 4))


def test_faces_without_area_in_the_texture_fall_back():
    mesh = quad()
    tangents, _ = mesh_tangents(mesh.replace(uvs=torch.zeros(4, 2)))
    torch.testing.assert_close(tangents[:, :3], torch.tensor([[0.0, 1, 0]]).expand(4, 3))
    with pytest.raises(ValueError, match="texture coordinates"):
        mesh_tangents(quad(uvs=False))


def test_tangents_lie_in_the_plane_of_the_normal():
    level = orthogonal_tangent(torch.tensor([[1.0, 0, 1], [0, 0, 2]]), torch.tensor([[0.0, 0, 1], [0, 0, 1]]))
    torch.testing.assert_close(level, torch.tensor([[1.0, 0, 0], [0, 1, 0]]))

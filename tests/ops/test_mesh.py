"""Mesh operations against answers known in closed form."""

import pytest
import torch

from maquette.ops import mesh as mesh_ops
from maquette.ops.mesh import Mesh

_CUBE_QUADS = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]


def box(size=(1.0, 1.0, 1.0), offset=(0.0, 0.0, 0.0)) -> Mesh:
    corners = torch.tensor([[x, y, z] for z in (0.0, 1.0) for y in (0.0, 1.0) for x in (0.0, 1.0)])
    faces = [tri for a, b, c, d in _CUBE_QUADS for tri in ((a, b, c), (a, c, d))]
    return Mesh(corners * torch.tensor(size) + torch.tensor(offset), torch.tensor(faces))


def joined(*meshes: Mesh) -> Mesh:
    starts = torch.tensor([0] + [m.n_vertices for m in meshes]).cumsum(0)
    faces = [m.faces + start for m, start in zip(meshes, starts, strict=False)]
    return Mesh(torch.cat([m.vertices for m in meshes]), torch.cat(faces))


def test_volume_area_and_bounding_box_of_a_box():
    mesh = box((1.0, 2.0, 3.0), offset=(5.0, -1.0, 0.0))
    assert mesh_ops.volume(mesh).item() == pytest.approx(6.0)
    assert mesh_ops.face_areas(mesh).sum().item() == pytest.approx(2 * (2 + 3 + 6))
    assert mesh_ops.bounding_box(mesh).tolist() == [[5.0, -1.0, 0.0], [6.0, 1.0, 3.0]]


def test_volume_changes_sign_when_the_faces_turn_inside_out():
    mesh = box()
    inside_out = mesh.replace(faces=mesh.faces.flip(1))
    assert mesh_ops.volume(inside_out).item() == pytest.approx(-1.0)


def test_bounding_box_ignores_vertices_that_no_face_uses():
    mesh = box()
    stray = mesh.replace(vertices=torch.cat([mesh.vertices, torch.full((1, 3), 99.0)]))
    assert mesh_ops.bounding_box(stray).max().item() == 1.0
    assert (
        mesh_ops.bounding_box(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long))).tolist()
        == [[0.0] * 3] * 2
    )


def test_face_normals_point_outwards():
    mesh = box()
    outwards = mesh_ops.triangles(mesh).mean(dim=1) - 0.5
    assert (mesh_ops.face_normals(mesh) * outwards).sum(dim=-1).min() > 0.4


def test_vertex_normals_weigh_faces_by_area():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 3]])
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    assert torch.allclose(mesh_ops.vertex_normals(mesh)[0], torch.tensor([3.0, 0.0, 1.0]) / 10**0.5)


def test_normals_without_area_point_up_and_are_finite():
    mesh = Mesh(torch.zeros(4, 3), torch.tensor([[0, 1, 2], [0, 1, 2], [1, 2, 2]]))
    assert torch.equal(mesh_ops.vertex_normals(mesh), torch.tensor([0.0, 0.0, 1.0]).expand(4, 3))
    assert torch.equal(mesh_ops.face_normals(mesh), torch.tensor([0.0, 0.0, 1.0]).expand(3, 3))


def test_vertex_normals_pass_gradients():
    mesh = box()
    vertices = mesh.vertices.clone().requires_grad_()
    mesh_ops.vertex_normals(mesh.replace(vertices=vertices))[:, 0].sum().backward()
    assert torch.isfinite(vertices.grad).all() and vertices.grad.abs().max() > 0


def test_edges_of_a_closed_surface_have_two_faces():
    pairs, counts = mesh_ops.edges(box())
    assert pairs.shape == (18, 2)
    assert counts.tolist() == [2] * 18


def test_components_follow_long_chains():
    n = 500
    strip = torch.stack([torch.arange(n), torch.arange(n) + 1, torch.arange(n) + 2], dim=1)
    shuffled = torch.randperm(n + 2, generator=torch.Generator().manual_seed(0))
    chain = Mesh(torch.rand(n + 2, 3, generator=torch.Generator().manual_seed(1)), shuffled[strip])
    labels, count = mesh_ops.component_labels(joined(chain, box()))
    assert count == 2
    assert labels.tolist() == [0] * n + [1] * 12


def test_largest_component_is_chosen_by_area_not_by_faces():
    big = box((4.0, 4.0, 4.0)).replace(faces=box().faces)
    small = joined(box(offset=(9.0, 0, 0)), box(offset=(9.5, 0, 0)))
    kept = mesh_ops.largest_components(joined(small, big), n=1)
    assert kept.n_faces == 12 and kept.n_vertices == 8
    assert mesh_ops.bounding_box(kept).tolist() == [[0.0] * 3, [4.0] * 3]


def test_small_components_go_and_larger_ones_stay():
    mesh = joined(box(), box((0.9, 0.9, 0.9), offset=(3.0, 0, 0)), box((0.1, 0.1, 0.1), offset=(6.0, 0, 0)))
    assert mesh_ops.remove_small_components(mesh, 0.5).n_faces == 24
    assert mesh_ops.remove_small_components(mesh, 0.001).n_faces == 36


def test_select_faces_keeps_positions_colours_and_uvs_of_each_corner():
    mesh = box()
    mesh = mesh.replace(
        vertex_colors=mesh.vertices.clone(),
        uvs=torch.arange(24.0).reshape(12, 2),
        uv_faces=torch.arange(36).reshape(12, 3) % 12,
    )
    keep = torch.zeros(12, dtype=torch.bool)
    keep[[3, 7]] = True
    kept = mesh_ops.select_faces(mesh, keep)
    assert torch.equal(mesh_ops.triangles(kept), mesh_ops.triangles(mesh)[keep])
    assert torch.equal(kept.vertex_colors[kept.faces], mesh.vertex_colors[mesh.faces][keep])
    assert torch.equal(kept.uvs[kept.uv_faces], mesh.uvs[mesh.uv_faces][keep])
    assert kept.uvs.shape[0] == len(torch.unique(mesh.uv_faces[keep]))


def test_degenerate_faces_are_removed():
    mesh = box()
    flat = torch.tensor([[0, 0, 1], [0, 1, 1]])
    vertices = torch.cat([mesh.vertices, torch.tensor([[0.5, 0.0, 0.0]])])
    sliver = torch.tensor([[0, 8, 1]])
    dirty = Mesh(vertices, torch.cat([mesh.faces, flat, sliver]))
    clean = mesh_ops.remove_degenerate_faces(dirty)
    assert torch.equal(mesh_ops.triangles(clean), mesh_ops.triangles(mesh))


def test_merging_turns_a_triangle_soup_into_a_closed_surface():
    mesh = box()
    soup = Mesh(mesh_ops.triangles(mesh).reshape(-1, 3), torch.arange(36).reshape(12, 3))
    merged = mesh_ops.merge_vertices(soup)
    assert merged.n_vertices == 8
    assert torch.equal(mesh_ops.triangles(merged), mesh_ops.triangles(mesh))
    assert mesh_ops.edges(merged)[1].tolist() == [2] * 18


def test_merging_removes_faces_that_shrink_to_a_line():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0.0, 1.0004, 0]])
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [1, 3, 2]]))
    assert mesh_ops.merge_vertices(mesh, tolerance=0.01).n_faces == 1


def test_zero_and_minus_zero_are_the_same_place():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [-0.0, 0, 0], [0, -1, 0]])
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [3, 4, 1]]))
    assert mesh_ops.merge_vertices(mesh).n_vertices == 4


def test_mesh_moves_with_all_its_tensors():
    mesh = box().replace(texture={"base_color": torch.zeros(2, 2, 3)}, uvs=torch.zeros(1, 2))
    moved = mesh.to("meta")
    assert {t.device.type for t in (moved.vertices, moved.faces, moved.uvs, moved.texture["base_color"])} == {
        "meta"
    }
    assert moved.uv_faces is None and not moved.has_uvs


def test_pairs_are_sorted_counted_and_found_again():
    pairs = torch.randint(0, 30, (500, 2), generator=torch.Generator().manual_seed(0))
    expected = torch.unique(pairs, dim=0, return_inverse=True, return_counts=True)
    for got, wanted in zip(mesh_ops.unique_pairs(pairs), expected, strict=True):
        assert torch.equal(got, wanted)
    assert [len(one) for one in mesh_ops.unique_pairs(pairs[:0])] == [0, 0, 0]


def test_pieces_with_few_faces_go_but_never_all():
    fan = Mesh(torch.rand(3, 3) + 9.0, torch.tensor([[0, 1, 2]]))
    mesh = joined(box(), fan)
    assert mesh_ops.remove_short_components(mesh, 2).n_faces == 12
    assert mesh_ops.remove_short_components(mesh, 1).n_faces == 13
    assert mesh_ops.remove_short_components(mesh, 1000).n_faces == 12

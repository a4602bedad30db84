"""Points on surfaces."""

import pytest
import torch

from maquette.ops.mesh import Mesh
from maquette.ops.point_cloud import PointCloud, sample_surface

SQUARE = Mesh(
    torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]),
    torch.tensor([[0, 1, 2], [0, 2, 3]]),
    vertex_colors=torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]),
)


def test_points_are_even_on_the_surface_and_repeat():
    cloud = sample_surface(SQUARE, 4000, seed=3)
    assert cloud.points[:, 2].abs().max() == 0 and cloud.points.min() >= 0 and cloud.points.max() <= 1
    assert cloud.normals.unique(dim=0).tolist() == [[0, 0, 1]]
    counts = torch.histogramdd(cloud.points[:, :2], 4, range=[0.0, 1.0, 0.0, 1.0]).hist / 250
    assert (counts - 1).abs().max() < 0.25
    assert torch.equal(cloud.points, sample_surface(SQUARE, 4000, seed=3).points)
    assert not torch.equal(cloud.points, sample_surface(SQUARE, 4000, seed=4).points)


def test_large_faces_get_more():
    thin = SQUARE.replace(faces=torch.tensor([[0, 1, 2]]))
    both = Mesh(torch.cat([thin.vertices, 3 * thin.vertices + 10]), torch.cat([thin.faces, thin.faces + 4]))
    assert (sample_surface(both, 1000).points[:, 0] > 5).sum() == pytest.approx(900, abs=1)


def test_colours_of_vertices_and_textures():
    cloud = sample_surface(SQUARE, 100)
    torch.testing.assert_close(cloud.colors, cloud.points)
    ramp = (torch.arange(16) + 0.5) / 16
    image = torch.stack([ramp.expand(16, 16), ramp.flip(0)[:, None].expand(16, 16), torch.zeros(16, 16)], -1)
    textured = SQUARE.replace(
        uvs=SQUARE.vertices[:, :2], uv_faces=SQUARE.faces, texture={"base_color": image}
    )
    torch.testing.assert_close(sample_surface(textured, 100).colors, cloud.points, atol=1 / 30, rtol=0)
    assert sample_surface(Mesh(SQUARE.vertices, SQUARE.faces), 5).colors is None


def test_textures_repeat():
    image = torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(0))
    inside = SQUARE.replace(
        uvs=0.1 + 0.8 * SQUARE.vertices[:, :2], uv_faces=SQUARE.faces, texture={"base_color": image}
    )
    wanted = sample_surface(inside, 50).colors
    tiled = inside.replace(uvs=inside.uvs + torch.tensor([3.0, -2.0]))
    torch.testing.assert_close(sample_surface(tiled, 50).colors, wanted, atol=1e-4, rtol=0)


def test_grey_textures_are_colours_and_pairs_of_channels_are_not():
    textured = SQUARE.replace(uvs=SQUARE.vertices[:, :2], uv_faces=SQUARE.faces)
    grey = sample_surface(textured.replace(texture={"base_color": torch.full((4, 4, 1), 0.5)}), 5)
    torch.testing.assert_close(grey.colors, torch.full((5, 3), 0.5))
    with pytest.raises(ValueError, match="this one has 2"):
        sample_surface(textured.replace(texture={"base_color": torch.ones(4, 4, 2)}), 5)


def test_no_area_is_refused():
    for mesh in (Mesh(SQUARE.vertices * 0, SQUARE.faces), Mesh(SQUARE.vertices, SQUARE.faces[:0])):
        with pytest.raises(ValueError, match="without area"):
            sample_surface(mesh, 10)


def test_some_of_a_cloud():
    cloud = PointCloud(torch.eye(3), normals=torch.eye(3))
    assert cloud[:2].n_points == 2 and cloud[torch.tensor([True, False, False])].normals.tolist() == [
        [1, 0, 0]
    ]

"""Pictures of shapes whose silhouette, depth, normals and colours are known."""

import math

import pytest
import torch

from maquette.core.errors import UserError
from maquette.kernels.raycast import RayMesh
from maquette.kernels.render_mesh import (
    AMBIENT,
    DIFFUSE,
    UNPAINTED,
    orbit_batch,
    render_mesh,
    turntable,
)
from maquette.ops.image import sample_texture
from maquette.ops.mesh import Mesh

QUADS = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
SIDES = {"-z": 0, "+z": 1, "-y": 2, "+y": 3, "-x": 4, "+x": 5}
COLOURS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]])


@pytest.fixture
def cube() -> Mesh:
    """A cube of side 1 around the origin; a texture of six columns paints each side in one colour."""
    corners = torch.tensor([[x, y, z] for z in (-0.5, 0.5) for y in (-0.5, 0.5) for x in (-0.5, 0.5)])
    faces = torch.tensor([t for a, b, c, d in QUADS for t in ((a, b, c), (a, c, d))])
    uvs = torch.tensor(
        [[(k + i) / 6, v] for k in range(6) for i, v in ((0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8))]
    )
    uv_faces = torch.tensor(
        [t for k in range(6) for t in ((4 * k, 4 * k + 1, 4 * k + 2), (4 * k, 4 * k + 2, 4 * k + 3))]
    )
    texture = COLOURS.repeat_interleave(4, dim=0).expand(8, 24, 3).contiguous()
    return Mesh(corners, faces, uvs=uvs, uv_faces=uv_faces, texture={"base_color": texture})


def views(mesh, azimuth, elevation=0.0, size=33, distance=4.0):
    return orbit_batch(mesh, torch.tensor(azimuth), size, elevation, distance, fovy_deg=30.0)


def test_each_side_shows_its_colour(cube):
    """Azimuth 0 looks at +x, 90 at +y; elevation 90 looks down on +z."""
    rgb = render_mesh(cube, views(cube, [0.0, 90.0, 180.0, 270.0]))["rgb"]
    top = render_mesh(cube, views(cube, [0.0], elevation=90.0))["rgb"]
    bottom = render_mesh(cube, views(cube, [0.0], elevation=-90.0))["rgb"]
    centres = torch.cat([rgb, top, bottom])[:, 16, 16]
    expected = COLOURS[[SIDES[side] for side in ("+x", "+y", "-x", "-y", "+z", "-z")]]
    torch.testing.assert_close(centres, expected, atol=1e-5, rtol=0)


def test_depth_normal_and_opacity_of_a_side(cube):
    shown = render_mesh(cube, views(cube, [0.0], size=64), supersample=1)
    batch = views(cube, [0.0], size=64)
    inside = shown["opacity"][0, ..., 0] == 1
    cosine = -batch.rays_d[0, ..., 0]
    torch.testing.assert_close(shown["depth"][0, ..., 0][inside], (3.5 / cosine)[inside], atol=1e-4, rtol=0)
    half = 0.5 / 3.5 / math.tan(math.radians(15.0))
    assert inside.float().mean().item() == pytest.approx(half**2, abs=0.02)
    outside = shown["opacity"][0, ..., 0] == 0
    assert not shown["depth"][0][outside].any() and not shown["normal"][0][outside].any()
    assert (shown["rgb"][0][outside] == 1).all()


def test_normals_are_unit_and_turned_to_the_viewer(cube):
    for mesh in (cube, cube.replace(faces=cube.faces.flip(1))):
        shown = render_mesh(mesh, views(mesh, [20.0], elevation=30.0))
        inside = shown["opacity"][0, ..., 0] == 1
        normals = shown["normal"][0][inside]
        torch.testing.assert_close(normals.norm(dim=-1), torch.ones(len(normals)))
        assert ((normals * views(mesh, [20.0], elevation=30.0).rays_d[0][inside]).sum(-1) < 0.2).all()


def test_flat_normals_of_a_single_triangle_are_exact():
    mesh = Mesh(torch.tensor([[0.0, -1, -1], [0, 1, -1], [0, 0, 1]]), torch.tensor([[0, 1, 2]]))
    shown = render_mesh(mesh, orbit_batch(mesh, torch.tensor([0.0, 180.0]), 16, 0.0, 5.0))
    assert torch.allclose(shown["normal"][0, 8, 8], torch.tensor([1.0, 0, 0]))
    assert torch.allclose(shown["normal"][1, 8, 8], torch.tensor([-1.0, 0, 0]))
    assert torch.allclose(shown["rgb"][0, 8, 8], torch.full((3,), UNPAINTED))


def test_supersampling_gives_the_covered_share_at_edges(cube):
    batch = views(cube, [0.0], size=16)
    hard = render_mesh(cube, batch, supersample=1)["opacity"]
    soft = render_mesh(cube, batch, supersample=4)["opacity"]
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    assert ((soft > 0) & (soft < 1)).any()
    fine = render_mesh(cube, views(cube, [0.0], size=64), supersample=1)["opacity"]
    pooled = torch.nn.functional.avg_pool2d(fine.permute(0, 3, 1, 2), 4).permute(0, 2, 3, 1)
    torch.testing.assert_close(soft, pooled)


def test_a_batch_is_its_views_stacked(cube):
    together = render_mesh(cube, views(cube, [0.0, 120.0, 240.0]), shading="lambert")
    for index, azimuth in enumerate([0.0, 120.0, 240.0]):
        alone = render_mesh(cube, views(cube, [azimuth]), shading="lambert")
        for name, value in alone.items():
            torch.testing.assert_close(value[0], together[name][index])


def test_lambert_is_albedo_times_the_cosine():
    vertices = torch.tensor([[0.0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]])
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]), vertex_colors=torch.full((4, 3), 0.5))
    batch = orbit_batch(mesh, torch.tensor([0.0]), 9, 0.0, 5.0)
    batch.light_positions = torch.tensor([[100.0, 0.0, 100.0]])
    rgb = render_mesh(mesh, batch, shading="lambert", supersample=1)["rgb"][0, 4, 4]
    assert rgb.tolist() == pytest.approx([0.5 * (AMBIENT + DIFFUSE * math.sqrt(0.5))] * 3, abs=2e-3)


def test_background_shows_behind(cube):
    rgb = render_mesh(cube, views(cube, [0.0]), background=(0.2, 0.4, 0.6))["rgb"]
    assert rgb[0, 0, 0].tolist() == pytest.approx([0.2, 0.4, 0.6])


def test_turntable_starts_at_the_front_and_keeps_the_mesh_inside(cube):
    frames = turntable(cube, n_views=9, size=32, elevation_deg=0.0, shading="albedo")
    assert frames.shape == (9, 32, 32, 3)
    assert torch.allclose(frames[0, 16, 16], COLOURS[SIDES["+x"]], atol=1e-5)
    border = torch.cat([frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]], dim=1)
    assert (border == 1).all()


def test_a_texture_is_sampled_as_its_twin_does():
    """A square that fills the picture, with texture coordinates that reach over the border."""
    vertices = torch.tensor([[0.0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    uvs = torch.tensor([[-0.1, -0.2], [1.1, -0.2], [1.1, 1.2], [-0.1, 1.2]])
    texture = torch.rand(5, 7, 3, generator=torch.Generator().manual_seed(0))
    mesh = Mesh(vertices, faces, uvs=uvs, uv_faces=faces, texture={"base_color": texture})
    batch = orbit_batch(mesh, torch.tensor([0.0]), 20, 0.0, 4.0, fovy_deg=20.0)
    rgb = render_mesh(mesh, batch, supersample=1)["rgb"][0]
    place = batch.rays_d[0] / -batch.rays_d[0, ..., :1] * 4.0
    uv = torch.stack([0.5 + 0.6 * place[..., 1], 0.5 + 0.7 * place[..., 2]], dim=-1)
    expected = sample_texture(texture, uv.reshape(-1, 2)).reshape(20, 20, 3)
    torch.testing.assert_close(rgb, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("distance", [4.0, 0.3])
def test_every_sample_sees_what_a_ray_meets_first(distance):
    """Triangles in a box, from outside and from their midst; the twin is a bounding volume hierarchy."""
    generator = torch.Generator().manual_seed(3)
    middles = torch.rand(60, 1, 3, generator=generator) - 0.5
    corners = middles + 0.8 * (torch.rand(60, 3, 3, generator=generator) - 0.5)
    mesh = Mesh(corners.reshape(-1, 3), torch.arange(180).reshape(60, 3))
    batch = orbit_batch(mesh, torch.tensor([30.0]), 48, 20.0, distance, fovy_deg=20.0)
    shown = render_mesh(mesh, batch, supersample=1)
    hits = RayMesh(mesh.vertices, mesh.faces).cast(batch.rays_o.reshape(-1, 3), batch.rays_d.reshape(-1, 3))
    seen, depth = shown["opacity"].reshape(-1) > 0, shown["depth"].reshape(-1)
    assert hits.mask.float().mean() > 0.3 and (seen != hits.mask).sum() <= 2, "rays along an edge may differ"
    both = seen & hits.mask
    assert ((depth - hits.t)[both].abs() > 1e-4).sum() <= 2


def test_no_ray_slips_between_two_faces():
    """A finely cut square has no hole, and a sample on an edge counts once."""
    n = 40
    y, z = torch.meshgrid(torch.linspace(-1, 1, n), torch.linspace(-1, 1, n), indexing="ij")
    vertices = torch.stack([0.1 * torch.sin(5 * y) * z, y, z], dim=-1).reshape(-1, 3)
    first = (torch.arange(n - 1)[:, None] * n + torch.arange(n - 1)).reshape(-1)
    halves = [[first, first + n, first + n + 1], [first, first + n + 1, first + 1]]
    faces = torch.cat([torch.stack(half, dim=1) for half in halves])
    mesh = Mesh(vertices, faces)
    shown = render_mesh(mesh, orbit_batch(mesh, torch.tensor([0.0, 25.0]), 64, 0.0, 3.0, fovy_deg=20.0))
    assert (shown["opacity"] == 1).all()


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_mesh_of_any_size_is_seen_as_it_is(cube, scale):
    """No plane of the projection cuts it, and depths keep their digits."""
    scaled = cube.replace(vertices=scale * cube.vertices)
    shown = render_mesh(scaled, views(scaled, [30.0], elevation=20.0, distance=4.0 * scale))
    plain = render_mesh(cube, views(cube, [30.0], elevation=20.0))
    torch.testing.assert_close(shown["rgb"], plain["rgb"], atol=1e-4, rtol=0)
    torch.testing.assert_close(shown["depth"] / scale, plain["depth"], atol=1e-4, rtol=0)


def test_a_camera_within_a_cube_sees_its_sides(cube):
    shown = render_mesh(cube, views(cube, [0.0, 90.0], distance=0.05))
    assert (shown["opacity"] == 1).all()
    centres = shown["rgb"][:, 16, 16]
    torch.testing.assert_close(centres, COLOURS[[SIDES["-x"], SIDES["-y"]]], atol=1e-5, rtol=0)


def test_a_fine_texture_seen_from_afar_is_its_mean():
    """A checkerboard of single texels, sixteen of them to a sample."""
    vertices = torch.tensor([[0.0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]])
    faces, uvs = torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    board = ((torch.arange(256)[:, None] + torch.arange(256)) % 2).float()[..., None].expand(-1, -1, 3)
    mesh = Mesh(vertices, faces, uvs=uvs, uv_faces=faces, texture={"base_color": board})
    rgb = render_mesh(mesh, orbit_batch(mesh, torch.tensor([0.0]), 16, 0.0, 4.0, fovy_deg=20.0))["rgb"]
    torch.testing.assert_close(rgb, torch.full_like(rgb, 0.5))


def test_a_mesh_without_faces_is_background():
    for vertices in (torch.zeros(0, 3), torch.zeros(2, 3)):
        mesh = Mesh(vertices, torch.zeros(0, 3, dtype=torch.long))
        shown = render_mesh(mesh, views(mesh, [0.0], size=4))
        assert not shown["opacity"].any() and (shown["rgb"] == 1).all()


def test_vertices_that_are_no_numbers_take_only_their_faces_away(cube):
    broken = torch.cat([cube.vertices, torch.tensor([[torch.nan, 0.0, 0.0]])])
    faces = torch.cat([cube.faces, torch.tensor([[0, 1, 8]])])
    mesh = Mesh(broken, faces)
    shown = render_mesh(mesh, views(cube, [0.0]))
    plain = render_mesh(Mesh(cube.vertices, cube.faces), views(cube, [0.0]))
    torch.testing.assert_close(shown["opacity"], plain["opacity"])


def test_wrong_options_are_refused(cube):
    with pytest.raises(UserError):
        render_mesh(cube, views(cube, [0.0]), supersample=0)
    with pytest.raises(UserError, match="texture coordinates"):
        render_mesh(cube.replace(uv_faces=cube.uv_faces + 99), views(cube, [0.0]))

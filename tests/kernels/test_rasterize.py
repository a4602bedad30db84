"""The rasteriser against its twin, against rays, and against what geometry says about edges."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maquette.core.errors import UserError
from maquette.kernels.rasterize import interpolate, interpolate_jacobian, rasterize
from maquette.kernels.raycast import RayMesh
from maquette.ops.camera_batch import make_camera_batch
from maquette.ops.cameras import look_at, orbit_to_position
from maquette.ops.transforms import world_to_clip

TWINS = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("raster_twins.py"))))


def cameras(views, height, width, distance=2.5, fovy=0.7):
    distances = torch.full((views,), distance)
    azimuth = torch.arange(views) * 50.0 + 20.0
    position = orbit_to_position(torch.full((views,), 25.0), azimuth, distances)
    up = torch.tensor([[0.0, 0.0, 1.0]]).expand(views, 3)
    return make_camera_batch(
        look_at(position, torch.zeros(views, 3), up),
        torch.full((views,), fovy),
        height,
        width,
        light_positions=position,
        elevation=torch.full((views,), 25.0),
        azimuth=azimuth,
        camera_distances=distances,
    )


def ball(n=12):
    """A closed sphere of unit radius with n rings of n faces, without faces that lack area."""
    polar, around = torch.meshgrid(
        torch.linspace(0.05, torch.pi - 0.05, n), torch.arange(n) * (2 * torch.pi / n), indexing="ij"
    )
    level = polar.sin()
    vertices = torch.stack([level * around.cos(), level * around.sin(), polar.cos()], -1).reshape(-1, 3)
    a = (torch.arange(n - 1)[:, None] * n + torch.arange(n)).reshape(-1)
    b = (torch.arange(n - 1)[:, None] * n + (torch.arange(n) + 1) % n).reshape(-1)
    faces = torch.cat([torch.stack([a, a + n, b + n], 1), torch.stack([a, b + n, b], 1)])
    return vertices, faces


def soup(count=60, seed=3):
    """Triangles in a box, in all directions, that intersect each other."""
    generator = torch.Generator().manual_seed(seed)
    middles = torch.rand(count, 1, 3, generator=generator) - 0.5
    corners = middles + 0.8 * (torch.rand(count, 3, 3, generator=generator) - 0.5)
    return corners.reshape(-1, 3), torch.arange(3 * count).reshape(count, 3)


SCENES = {"ball": (ball, 2.5), "soup": (soup, 2.5), "inside": (soup, 0.3)}


def scene(name, views, height, width):
    make, distance = SCENES[name]
    vertices, faces = make()
    batch = cameras(views, height, width, distance)
    return world_to_clip(vertices.expand(views, -1, 3), batch.mvp_mtx), faces, batch, vertices


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize(("views", "height", "width"), [(1, 24, 40), (3, 31, 17)])
def test_fragments_equal_the_twin(name, views, height, width):
    clip, faces, _, _ = scene(name, views, height, width)
    got, wanted = rasterize(clip, faces, height, width), TWINS.rasterize(clip.double(), faces, height, width)
    same = got.face == wanted.face
    assert got.mask.float().mean() > 0.1 and (~same).sum() <= 1, "depths that differ by rounding only"
    torch.testing.assert_close(got.barycentric.double()[same], wanted.barycentric[same], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.depth.double()[same], wanted.depth[same], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.jacobian.double()[same], wanted.jacobian[same], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SCENES)
def test_both_ways_of_the_twin_agree(name):
    clip, faces, _, _ = scene(name, 1, 37, 43)
    boxes, tiles = (TWINS.rasterize(clip.double(), faces, 37, 43, way) for way in ("boxes", "tiles"))
    assert torch.equal(boxes.face, tiles.face) and boxes.mask.any()


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("views", [1, 3])
def test_gradients_equal_the_twin(name, views):
    clip, faces, _, _ = scene(name, views, 21, 34)
    values = torch.randn(clip.shape[1], 4)
    got = gradients(rasterize, interpolate, clip, values, faces)
    wanted = gradients(TWINS.rasterize, TWINS.interpolate, clip.double(), values.double(), faces)
    for one, other in zip(got, wanted, strict=True):
        assert torch.cosine_similarity(one.double().flatten(), other.flatten(), dim=0) > 0.999999
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4 * other.abs().max().item())


def gradients(draw, spread, clip, values, faces):
    clip, values = clip.clone().requires_grad_(), values.clone().requires_grad_()
    fragments = draw(clip, faces, 21, 34)
    shown = torch.cat([spread(values, fragments, faces), fragments.depth, fragments.barycentric], -1)
    weights = torch.rand(shown.shape, generator=torch.Generator().manual_seed(5)).to(shown)
    return torch.autograd.grad((weights * shown).sum(), [clip, values])


@pytest.mark.parametrize("name", SCENES)
def test_points_are_those_that_rays_meet(name):
    clip, faces, batch, vertices = scene(name, 1, 40, 56)
    fragments = rasterize(clip, faces, 40, 56)
    hits = RayMesh(vertices, faces).cast(batch.rays_o.reshape(-1, 3), batch.rays_d.reshape(-1, 3))
    both = fragments.mask.reshape(-1) & hits.mask
    assert (fragments.mask.reshape(-1) != hits.mask).sum() <= 3, "rays along an edge may differ"
    points = interpolate(vertices, fragments, faces).reshape(-1, 3)
    met = batch.rays_o.reshape(-1, 3) + hits.t[:, None] * batch.rays_d.reshape(-1, 3)
    assert ((points - met)[both].norm(dim=-1) > 1e-4).sum() <= 3


def test_a_camera_within_a_ball_sees_it_everywhere():
    vertices, faces = ball(24)
    batch = cameras(2, 18, 30, distance=0.2, fovy=2.0)
    fragments = rasterize(world_to_clip(vertices.expand(2, -1, 3), batch.mvp_mtx), faces, 18, 30)
    distance = interpolate(vertices, fragments, faces).norm(dim=-1)
    assert fragments.mask.all() and distance.min() > 0.95 and distance.max() < 1.001


def test_what_is_in_front_of_the_near_plane_or_behind_the_far_plane_is_not_seen():
    square = torch.tensor([[-1.0, -1, 0, 1], [1, -1, 0, 1], [1, 1, 0, 1], [-1, 1, 0, 1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    for z, seen in ((-1.01, False), (-0.99, True), (0.99, True), (1.01, False)):
        moved = square + torch.tensor([0.0, 0.0, z, 0.0])
        assert rasterize(moved[None], faces, 3, 5).mask.all().item() is seen
    tilted = square.clone()
    tilted[:, 2] = 2 * tilted[:, 0]
    assert rasterize(tilted[None], faces, 2, 8).mask.float().mean() == 0.5, "|z| <= 1 is half of it"


def grid_on_pixel_centres(height, width):
    """Squares cut in two, with corners exactly at pixel centres, in the plane w = 1."""
    y, x = torch.meshgrid(torch.arange(height - 1), torch.arange(width - 1), indexing="ij")
    rows = (2.0 * torch.arange(height) + 1) / height - 1
    columns = (2.0 * torch.arange(width) + 1) / width - 1
    points = torch.stack([columns.repeat(height), rows.repeat_interleave(width)], 1)
    a = (y * width + x).reshape(-1)
    faces = torch.cat(
        [torch.stack([a, a + 1, a + width], 1), torch.stack([a + 1, a + width + 1, a + width], 1)]
    )
    clip = torch.cat([points, torch.zeros(len(points), 1), torch.ones(len(points), 1)], 1)
    return clip, faces


@pytest.mark.parametrize("welded", [True, False])
@pytest.mark.parametrize(("height", "width"), [(8, 16), (7, 11)])
def test_a_pixel_on_an_edge_belongs_to_exactly_one_face(height, width, welded):
    clip, faces = grid_on_pixel_centres(height, width)
    if not welded:
        clip, faces = clip[faces.reshape(-1)], torch.arange(faces.numel()).reshape(-1, 3)
    mirrored = faces.clone()
    mirrored[::3] = mirrored[::3].flip(1)
    drawn = sum(rasterize(clip[None], face[None], height, width).mask.int() for face in mirrored)
    whole = rasterize(clip[None], mirrored, height, width).mask.int()
    assert torch.equal(drawn, whole), "drawn twice or left out"
    if (height, width) == (8, 16):
        assert whole.sum() == 7 * 15, "a region owns two of its four sides; here the centres are exact"


def test_faces_around_slanted_edges_leave_no_hole_and_overlap_nowhere():
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(9, 9, 2, generator=generator) * 0.12
    points += torch.stack(torch.meshgrid(*[torch.linspace(-1.1, 1.0, 9)] * 2, indexing="xy"), -1)
    depth = 1.0 + torch.rand(81, 1, generator=generator)
    clip = torch.cat([points.reshape(81, 2) * depth, torch.zeros(81, 1), depth], 1)
    a = (torch.arange(8)[:, None] * 9 + torch.arange(8)).reshape(-1)
    faces = torch.cat([torch.stack([a, a + 1, a + 9], 1), torch.stack([a + 1, a + 10, a + 9], 1)])
    drawn = sum(rasterize(clip[None], face[None], 33, 47).mask.int() for face in faces)
    assert (drawn == 1).all()


def test_at_equal_depth_the_first_face_is_seen():
    clip, faces = grid_on_pixel_centres(4, 4)
    assert (rasterize(clip[None], torch.cat([faces, faces]), 4, 4).face < len(faces)).all()


def test_values_are_interpolated_perspective_correct_and_per_view():
    clip = torch.tensor([[-1.0, -1, 0, 1], [3, -3, 0, 3], [3, 3, 0, 3], [-1, 1, 0, 1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    fragments = rasterize(clip[None].repeat(2, 1, 1), faces, 5, 9)
    depth = interpolate(torch.stack([clip[:, 3:], 2 * clip[:, 3:]]), fragments, faces)
    x = (2 * torch.arange(9) + 1) / 9 - 1
    expected = (1 / ((1 + 1 / 3) / 2 + x * (1 / 3 - 1) / 2)).expand(5, 9)
    torch.testing.assert_close(depth[..., 0], torch.stack([expected, 2 * expected]))
    slopes = interpolate_jacobian(clip[:, 3:], fragments, faces)
    change = expected.square() * (1 - 1 / 3) / 9
    torch.testing.assert_close(slopes[0, ..., 0], change)
    torch.testing.assert_close(slopes[0, ..., 1], torch.zeros(5, 9))


@pytest.mark.parametrize("per_view", [False, True])
def test_interpolation_and_its_slopes_equal_the_twin(per_view):
    clip, faces, _, vertices = scene("soup", 3, 14, 22)
    values = torch.randn(3, len(vertices), 2) if per_view else torch.randn(len(vertices), 2)
    fragments = rasterize(clip, faces, 14, 22)
    torch.testing.assert_close(
        interpolate(values, fragments, faces), TWINS.interpolate(values, fragments, faces)
    )
    got = interpolate_jacobian(values, fragments, faces)
    torch.testing.assert_close(got, TWINS.interpolate_jacobian(values, fragments, faces))


def test_corners_may_have_values_of_their_own():
    clip, faces, _, vertices = scene("ball", 1, 16, 16)
    fragments = rasterize(clip, faces, 16, 16)
    corners = torch.arange(faces.numel()).reshape(-1, 3)
    split = interpolate(vertices[faces.reshape(-1)], fragments, corners)
    assert torch.equal(split, interpolate(vertices, fragments, faces))


def test_a_batch_is_its_views_stacked_whatever_the_threads(set_threads):
    clip, faces, _, vertices = scene("ball", 3, 40, 33)
    pictures = []
    for threads in (1, 3):
        set_threads(threads)
        pictures.append(interpolate(vertices, rasterize(clip, faces, 40, 33), faces))
        alone = [interpolate(vertices, rasterize(one[None], faces, 40, 33), faces) for one in clip]
        assert torch.equal(pictures[-1], torch.cat(alone))
    assert torch.equal(*pictures)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4096, 3), (3, 4096)])
def test_any_size(height, width):
    clip, faces, _, vertices = scene("ball", 1, height, width)
    clip = clip.requires_grad_()
    fragments = rasterize(clip, faces, height, width)
    interpolate(vertices, fragments, faces).sum().backward()
    assert fragments.face.shape == (1, height, width) and fragments.face[0, height // 2, width // 2] >= 0
    assert torch.isfinite(clip.grad).all()


def test_faces_that_cannot_be_drawn_are_left_out():
    clip, faces, _, _ = scene("ball", 1, 20, 20)
    broken = clip.clone()
    broken[0, 5], broken[0, 60, 3], broken[0, 61, 0] = torch.nan, torch.inf, -torch.inf
    bad = ((faces == 5) | (faces == 60) | (faces == 61)).any(dim=1)
    broken = broken.requires_grad_()
    fragments = rasterize(broken, faces, 20, 20)
    kept = faces[~bad]
    expected = rasterize(clip, kept, 20, 20)
    number = torch.cat([(~bad).nonzero()[:, 0], torch.tensor([-1])])
    assert torch.equal(fragments.face.long(), number[expected.face.long()])
    fragments.barycentric.sum().backward()
    assert torch.isfinite(broken.grad).all()


def test_faces_without_area_are_not_seen():
    clip = torch.tensor([[-0.5, -0.5, 0, 1], [0.5, 0.5, 0, 1], [0, 0, 0, 1], [0.7, -0.7, 0, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 0, 1], [3, 3, 3]])
    assert not rasterize(clip[None], faces, 9, 9).mask.any()


def test_nothing_to_draw_gives_an_empty_picture_with_gradients():
    values = torch.zeros(0, 3, requires_grad=True)
    clip = torch.zeros(2, 0, 4, requires_grad=True)
    faces = torch.zeros(0, 3, dtype=torch.long)
    fragments = rasterize(clip, faces, 4, 5)
    shown = interpolate(values, fragments, faces)
    assert not fragments.mask.any() and (fragments.depth == 1).all() and not shown.any()
    (shown.sum() + fragments.barycentric.sum()).backward()
    assert clip.grad.shape == (2, 0, 4) and values.grad.shape == (0, 3)


def test_wrong_arguments_are_refused():
    clip, faces, _, _ = scene("ball", 1, 4, 4)
    with pytest.raises(UserError, match="0 to 999"):
        rasterize(clip, torch.tensor([[0, 1, 999]]), 4, 4)
    with pytest.raises(UserError, match="-1 to"):
        rasterize(clip, torch.tensor([[0, 1, -1]]), 4, 4)
    with pytest.raises(UserError, match="0 x 4"):
        rasterize(clip, faces, 0, 4)
    with pytest.raises(UserError, match="values"):
        interpolate(torch.zeros(2, 3), rasterize(clip, faces, 4, 4), faces)
    with pytest.raises(UserError, match="2 views"):
        interpolate(torch.zeros(2, 144, 3), rasterize(clip, faces, 4, 4), faces)


def test_faces_that_were_written_to_are_looked_at_again():
    clip, faces, _, _ = scene("ball", 1, 16, 16)
    before = rasterize(clip, faces, 16, 16).mask.sum()
    faces[len(faces) // 2 :] = 0
    assert rasterize(clip, faces, 16, 16).mask.sum() < before
    faces[0, 0] = 10**6
    with pytest.raises(UserError):
        rasterize(clip, faces, 16, 16)

"""Silhouettes: areas and their derivatives known from geometry, and the plain twin."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maquette.kernels.rasterize import antialias, rasterize
from maquette.kernels.topology import opposite_half_edges
from maquette.ops.transforms import world_to_clip

HERE = Path(__file__).parent
TWINS = SimpleNamespace(**runpy.run_path(str(HERE / "raster_twins.py")))
SCENES = SimpleNamespace(**runpy.run_path(str(HERE / "test_rasterize.py")))
HEIGHT, WIDTH = 96, 128
HALF = 0.6


def square(cells):
    """A square from -1 to 1, cut into cells of two faces each."""
    n = cells + 1
    y, x = torch.meshgrid(torch.linspace(-1, 1, n), torch.linspace(-1, 1, n), indexing="ij")
    a = (torch.arange(cells)[:, None] * n + torch.arange(cells)).reshape(-1)
    faces = torch.cat([torch.stack([a, a + 1, a + n], 1), torch.stack([a + 1, a + n + 1, a + n], 1)])
    return torch.stack([x, y], -1).reshape(-1, 2), faces


def covered_area(shift_x, shift_y, half, cells, tilt=1.0):
    """Pixels that a square of half-width `half` (NDC) covers, in each view; `tilt` varies w from left to
    right, which must not matter.
    """
    points, faces = square(cells)
    place = points * half[:, None, None] + torch.stack([shift_x, shift_y], -1)[:, None]
    w = torch.linspace(1.0, tilt, cells + 1).repeat(cells + 1)[None, :, None].expand(len(half), -1, 1)
    clip = torch.cat([place * w, torch.zeros_like(w), w], -1)
    fragments = rasterize(clip, faces, HEIGHT, WIDTH)
    mask = antialias(fragments.mask[..., None].float(), fragments, clip, faces)
    return mask.sum(dim=(1, 2, 3))


OFFSETS = {1: torch.tensor([0.013]), 3: torch.tensor([0.013, -0.021, 0.0])}
MESHES = [(1, 1.0), (3, 2.0), (48, 1.0)]


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize(("cells", "tilt"), MESHES)
def test_area_grows_with_the_size_of_a_square_as_it_should(views, cells, tilt):
    """The finest square has three faces to a pixel, most of which show nowhere."""
    offset = OFFSETS[views]
    half = torch.full((views,), HALF).add(offset).requires_grad_()
    area = covered_area(offset, offset.flip(0) - 0.01, half, cells, tilt)
    torch.testing.assert_close(area, half.detach().square() * HEIGHT * WIDTH, rtol=0.005, atol=0)
    area.sum().backward()
    torch.testing.assert_close(half.grad, 2 * half.detach() * HEIGHT * WIDTH, rtol=0.02, atol=0)


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize(("cells", "tilt"), MESHES)
@pytest.mark.parametrize("axis", ["x", "y"])
def test_area_in_the_picture_shrinks_as_a_square_leaves_it(views, cells, tilt, axis):
    """The square sticks out at one side; moving it out by one unit takes away its other side's length."""
    out = torch.full((views,), 0.7).add(OFFSETS[views]).requires_grad_()
    still, half = OFFSETS[views].flip(0), torch.full((views,), HALF)
    shift = (out, still) if axis == "x" else (still, out)
    area = covered_area(*shift, half, cells, tilt)
    torch.testing.assert_close(area, (1 - (out - HALF)) * HALF * HEIGHT * WIDTH / 2, rtol=0.006, atol=0)
    area.sum().backward()
    torch.testing.assert_close(out.grad, torch.full((views,), -HALF * HEIGHT * WIDTH / 2), rtol=0.02, atol=0)


def test_area_stays_when_a_square_moves_within_the_picture():
    shift = torch.tensor([0.1], requires_grad=True)
    covered_area(shift, torch.zeros(1), torch.tensor([HALF]), 2).sum().backward()
    assert shift.grad.abs().item() < 0.02 * HALF * HEIGHT * WIDTH


def test_an_edge_exactly_between_pixels_has_its_gradient():
    half = torch.tensor([0.5], requires_grad=True)
    area = covered_area(torch.zeros(1), torch.zeros(1), half, 1)
    area.sum().backward()
    assert area.item() == 0.25 * HEIGHT * WIDTH
    assert half.grad.item() == pytest.approx(HEIGHT * WIDTH, rel=1e-5)


def test_area_of_a_ball_and_its_derivative():
    """The silhouette lies on edges between faces that turn to the viewer and faces that turn away."""
    vertices, faces = SCENES.ball(64)
    batch = SCENES.cameras(2, 120, 150, distance=4.0)
    radius = torch.tensor(0.8, requires_grad=True)
    clip = world_to_clip((radius * vertices).expand(2, -1, 3), batch.mvp_mtx)
    fragments = rasterize(clip, faces, 120, 150)
    mask = antialias(fragments.mask[..., None].float(), fragments, clip, faces)
    tangent = radius.detach().double() / (16 - radius.detach().double().square()).sqrt()
    focal = 60 / torch.tan(torch.tensor(0.35, dtype=torch.float64))
    area = torch.pi * (focal * tangent).square().item()
    assert mask.sum().item() / 2 == pytest.approx(area, rel=0.01)
    mask.sum().backward()
    slope = 2 * area * 16 / (radius.item() * (16 - radius.item() ** 2))
    assert radius.grad.item() / 2 == pytest.approx(slope, rel=0.02)


@pytest.mark.parametrize("name", SCENES.SCENES)
@pytest.mark.parametrize(("views", "height", "width"), [(1, 28, 36), (3, 36, 25)])
def test_values_and_gradients_equal_the_twin(name, views, height, width):
    make, distance = SCENES.SCENES[name]
    vertices, faces = make()
    batch = SCENES.cameras(views, height, width, max(distance, 0.7), fovy=1.1)
    clip = world_to_clip(vertices.expand(views, -1, 3), batch.mvp_mtx)
    fragments = rasterize(clip, faces, height, width)
    color = torch.randn(views, height, width, 3)
    got = blended_and_gradients(antialias, color, fragments, clip, faces)
    wanted = blended_and_gradients(TWINS.antialias, color.double(), fragments, clip.double(), faces)
    assert ((got[0] - color).abs().sum(-1) > 0).float().mean() > 0.01, "something was blended"
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4 * other.abs().max().item())
        assert torch.cosine_similarity(one.double().flatten(), other.flatten(), dim=0) > 0.9999


def blended_and_gradients(blend, color, fragments, clip, faces):
    color, clip = color.clone().requires_grad_(), clip.clone().requires_grad_()
    out = blend(color, fragments, clip, faces)
    weights = torch.rand(out.shape, generator=torch.Generator().manual_seed(5)).to(out)
    return [out.detach(), *torch.autograd.grad((weights * out).sum(), [color, clip])]


def test_the_inside_of_a_surface_is_left_as_it_is():
    points, faces = square(30)
    clip = torch.cat([2 * points, 0.5 * torch.rand(len(points), 1), torch.ones(len(points), 1)], -1)[None]
    fragments = rasterize(clip, faces, 40, 40)
    color = torch.rand(1, 40, 40, 3)
    assert fragments.mask.all() and torch.equal(antialias(color, fragments, clip, faces), color)


def test_an_inner_silhouette_is_blended_and_a_change_behind_it_is_not():
    """A small square in front of a large one."""
    points, faces = square(1)
    near = torch.cat([0.43 * points, torch.full((4, 1), -0.5), torch.ones(4, 1)], -1)
    far = torch.cat([2 * points, torch.full((4, 1), 0.5), torch.ones(4, 1)], -1)
    clip, both = torch.cat([near, far])[None], torch.cat([faces, faces + 4])
    fragments = rasterize(clip, both, 20, 20)
    shown = antialias((fragments.face < 2)[..., None].float(), fragments, clip, both)
    assert shown.sum().item() == pytest.approx((0.43 * 20) ** 2, rel=0.01)


def test_half_edges_find_each_other():
    _, faces = SCENES.ball(9)
    opposite = opposite_half_edges(faces.int())
    assert torch.equal(opposite.long(), TWINS.opposite_half_edges(faces))
    inner = opposite >= 0
    assert torch.equal(opposite[opposite[inner].long()], torch.arange(len(opposite)).int()[inner])
    assert (~inner).sum() == 18, "the two holes of the ball"


def test_edges_of_three_faces_and_of_one_vertex_have_no_other_side():
    faces = torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4], [5, 5, 6]])
    opposite = opposite_half_edges(faces.int())
    assert opposite[[0, 3, 6]].tolist() == [-1, -1, -1] and opposite[9] == -1
    assert torch.equal(opposite.long(), TWINS.opposite_half_edges(faces))


def test_time_does_not_grow_with_the_faces_around_a_vertex():
    """A fan of 200 000 faces: a list of them for each vertex would be searched 10^10 times."""
    rim = torch.arange(1, 200_001)
    fan = torch.stack([torch.zeros_like(rim), rim, rim + 1], 1).int()
    opposite = opposite_half_edges(fan)
    assert (opposite >= 0).sum() == 2 * (len(fan) - 1)

"""Gaussian splatting against its twin in float64, and against what is known without one."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cosine_similarity

from maquette.core.errors import ConfigError
from maquette.kernels import gaussian_composite
from maquette.kernels.gaussians import normals_of, splat
from maquette.ops.gaussians import rotation_matrices

GRADIENTS = {"3d": 1e-6, "2d": 1e-4}
"""One minus the cosine with the twin's gradient; a flat Gaussian seen near its edge loses digits."""

NAMES = ("means", "rotations", "scales", "opacities", "colors", "background")


@pytest.fixture(scope="module")
def gaussian_twins():
    path = Path(__file__).with_name("gaussian_twins.py")
    spec = importlib.util.spec_from_file_location("gaussian_twins", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cloud(n, channels=3, size=0.15):
    """Gaussians of all shapes around the origin, and a background."""
    scales = size * torch.exp(0.6 * torch.randn(n, 3))
    rest = [0.02 + 0.97 * torch.rand(n), torch.rand(n, channels), torch.rand(channels)]
    return [0.5 * torch.randn(n, 3), torch.randn(n, 4) * 2.0, scales, *rest]


def cameras(views, height, width):
    """Cameras around the origin; focal lengths differ, the principal point is off the middle."""
    w2c = torch.eye(4).repeat(views, 1, 1)
    w2c[:, :3, :3] = rotation_matrices(torch.randn(views, 4))
    w2c[:, :3, 3] = torch.tensor([0.1, -0.1, 2.2])
    lens = [[1.1 * width, 0.0, 0.6 * width], [0.0, 1.3 * height, 0.4 * height], [0.0, 0.0, 1.0]]
    return w2c, torch.tensor(lens).repeat(views, 1, 1)


def facing_camera(height, width, distance=2.0):
    w2c = torch.eye(4)[None].clone()
    w2c[:, 2, 3] = distance
    lens = [[40.0, 0.0, 0.5 * width], [0.0, 40.0, 0.5 * height], [0.0, 0.0, 1.0]]
    return w2c, torch.tensor([lens])


def drawn(arguments, view, height, width, primitive, **options):
    """The kernel's pictures, ready for a backward pass."""
    inputs = [t.clone().requires_grad_() for t in arguments]
    out = splat(*inputs[:5], *view, height, width, primitive=primitive, background=inputs[5], **options)
    out.means2d.retain_grad()
    pictures = {name: getattr(out, name) for name in ("color", "opacity", "depth", "normal")}
    return inputs, {name: p for name, p in pictures.items() if p is not None}, out


def drawn_by_twin(twins, arguments, view, height, width, primitive):
    inputs = [t.double().requires_grad_() for t in arguments]
    w2c, intrinsics = (t.double() for t in view)
    normals = normals_of(*inputs[:3], w2c, primitive == "2d")
    options = {"primitive": primitive, "background": inputs[5], "normals": normals, "boxes": False}
    out = twins.splat(*inputs[:5], w2c, intrinsics, height, width, **options)
    out["means2d"].retain_grad()
    return inputs, out


def backward(pictures, dtype):
    """A loss in which every pixel and channel has a weight of its own."""
    weights = torch.Generator().manual_seed(5)
    loss = 0.0
    for name in ("color", "opacity", "depth", "normal"):
        weight = torch.randn(pictures[name].shape, generator=weights)
        loss = loss + (pictures[name] * weight.to(dtype)).sum()
    loss.backward()


def assert_like_twin(twins, arguments, view, height, width, primitive):
    tolerance = GRADIENTS[primitive]
    inputs, pictures, out = drawn(arguments, view, height, width, primitive, normals=True)
    twin_inputs, expected = drawn_by_twin(twins, arguments, view, height, width, primitive)
    for name, picture in pictures.items():
        torch.testing.assert_close(
            picture.double(), expected[name], rtol=1e-4, atol=1e-4 * expected[name].abs().max().item()
        )
    backward(pictures, torch.float32)
    backward(expected, torch.float64)
    ours = [t.grad for t in inputs] + [out.means2d.grad]
    theirs = [t.grad for t in twin_inputs] + [expected["means2d"].grad]
    for name, a, b in zip((*NAMES, "means2d"), ours, theirs, strict=True):
        assert cosine_similarity(a.double().flatten(), b.flatten(), 0) > 1.0 - tolerance, name
        assert a.norm().item() == pytest.approx(b.norm().item(), rel=100.0 * tolerance), name


@pytest.mark.parametrize("primitive", ["3d", "2d"])
@pytest.mark.parametrize(("views", "height", "width"), [(1, 40, 23), (3, 18, 35)])
def test_values_and_gradients_are_those_of_the_twin(gaussian_twins, primitive, views, height, width):
    torch.manual_seed(views)
    view = cameras(views, height, width)
    assert_like_twin(gaussian_twins, cloud(50), view, height, width, primitive)


@pytest.mark.parametrize("primitive", ["3d", "2d"])
def test_camera_inside_the_cloud(gaussian_twins, primitive):
    w2c, intrinsics = cameras(1, 20, 30)
    w2c[:, :3, 3] = 0.0
    arguments = cloud(80, size=0.05)
    near = ((arguments[0] @ w2c[0, 2, :3]) > 0.0) & ((arguments[0] @ w2c[0, 2, :3]) < 0.1)
    arguments[0] = torch.where(near[:, None], -arguments[0], arguments[0])
    assert_like_twin(gaussian_twins, arguments, (w2c, intrinsics), 20, 30, primitive)


def test_a_dense_cloud_hides_what_is_behind(gaussian_twins):
    arguments = cloud(300, size=0.3)
    arguments[3].fill_(0.95)
    assert_like_twin(gaussian_twins, arguments, cameras(1, 20, 20), 20, 20, "3d")


@pytest.mark.parametrize("lanes", [1, 4])
def test_blocks_as_on_a_gpu_give_the_same(gaussian_twins, monkeypatch, lanes):
    monkeypatch.setattr(gaussian_composite.Plan, "lanes", property(lambda plan: lanes))
    assert_like_twin(gaussian_twins, cloud(30), cameras(2, 18, 20), 18, 20, "3d")


def test_threads_change_no_bit(set_threads):
    arguments, view = cloud(200), cameras(1, 64, 80)
    results = []
    for threads in (1, 3):
        set_threads(threads)
        inputs, pictures, _ = drawn(arguments, view, 64, 80, "3d", normals=True)
        backward(pictures, torch.float32)
        results.append([*pictures.values(), *(t.grad for t in inputs)])
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)


@pytest.mark.parametrize("primitive", ["3d", "2d"])
def test_views_together_are_views_alone(primitive):
    arguments, (w2c, intrinsics) = cloud(40), cameras(3, 17, 33)
    together = splat(*arguments[:5], w2c, intrinsics, 17, 33, primitive=primitive, normals=True)
    for b in range(3):
        view = w2c[b : b + 1], intrinsics[b : b + 1]
        alone = splat(*arguments[:5], *view, 17, 33, primitive=primitive, normals=True)
        for name in ("color", "opacity", "depth", "normal", "means2d", "radii"):
            assert torch.equal(getattr(together, name)[b], getattr(alone, name)[0]), name


def test_one_gaussian_is_a_gaussian():
    """On the axis: opacity o exp(-d^2 / 2 v), v = (f s / z)^2 + 0.3; color, depth and normal follow it."""
    size, height, width = 0.1, 33, 47
    view = facing_camera(height, width)
    color = torch.tensor([[0.2, 0.5, 0.9]])
    scales = torch.tensor([[size, size, 0.5 * size]])
    shape = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), scales, torch.tensor([0.7])
    out = splat(torch.zeros(1, 3), *shape, color, *view, height, width, normals=True)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    squared = (x - 0.5 * width) ** 2 + (y - 0.5 * height) ** 2
    expected = 0.7 * torch.exp(-0.5 * squared / ((40.0 * size / 2.0) ** 2 + 0.3))
    expected = torch.where(expected >= 1.0 / 255.0, expected, 0.0)[None, ..., None]
    torch.testing.assert_close(out.opacity, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out.color, expected * color, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out.depth, 2.0 * expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out.normal, expected * torch.tensor([0.0, 0.0, -1.0]), rtol=1e-5, atol=1e-6)
    assert out.radii.item() == math.ceil(3.0 * math.sqrt(4.3))
    torch.testing.assert_close(out.means2d[0, 0], torch.tensor([23.5, 16.5]))


def test_a_flat_gaussian_lies_in_its_plane():
    """Turned by 60 degrees about y: its depth along x is that of the plane."""
    half = math.radians(30.0)
    turned = torch.tensor([[math.cos(half), 0.0, math.sin(half), 0.0]])
    size = torch.tensor([[0.6, 0.6, 0.3]])
    view = facing_camera(32, 32)
    shape = torch.zeros(1, 3), turned, size, torch.ones(1), torch.ones(1, 1)
    out = splat(*shape, *view, 32, 32, primitive="2d", normals=True)
    x = (torch.arange(32) + 0.5 - 16.0) / 40.0
    plane = 2.0 / (1.0 + x * math.tan(math.radians(60.0)))
    seen = out.opacity[0, 16, :, 0] > 0.01
    assert seen.sum() > 8
    found = (out.depth / out.opacity)[0, 16, :, 0]
    torch.testing.assert_close(found[seen], plane[seen], rtol=1e-4, atol=1e-4)
    normal = (out.normal / out.opacity)[0, 16, 16]
    torch.testing.assert_close(normal.abs(), torch.tensor([math.sqrt(0.75), 0.0, 0.5]), atol=1e-4, rtol=0)
    assert normal[2] < 0.0, "towards the viewer"


@pytest.mark.parametrize("third", [0.0, 50.0, float("nan")])
def test_the_third_scale_of_flat_gaussians_does_not_count(third):
    arguments, view = cloud(20), cameras(2, 16, 20)
    expected = splat(*arguments[:5], *view, 16, 20, primitive="2d", normals=True)
    arguments[2][:, 2] = third
    inputs, pictures, out = drawn(arguments, view, 16, 20, "2d", normals=True)
    assert torch.equal(out.radii, expected.radii) and torch.equal(out.opacity, expected.opacity)
    backward(pictures, torch.float32)
    assert all(t.grad.isfinite().all() for t in inputs) and not inputs[2].grad[:, 2].any()


def test_moving_the_principal_point_moves_the_picture():
    arguments = cloud(40, size=0.05)
    w2c, intrinsics = cameras(1, 30, 40)
    moved = intrinsics.clone()
    moved[:, 0, 2] += 3.0
    moved[:, 1, 2] -= 2.0
    a = splat(*arguments[:5], w2c, intrinsics, 30, 40, primitive="2d").color
    b = splat(*arguments[:5], w2c, moved, 30, 40, primitive="2d").color
    torch.testing.assert_close(b[:, :-2, 3:], a[:, 2:, :-3], atol=2e-5, rtol=1e-4)


def test_colors_and_backgrounds_of_each_view():
    arguments, view = cloud(30, channels=32), cameras(2, 16, 20)
    colors, backgrounds = torch.rand(2, 30, 32), torch.rand(2, 32)
    both = splat(*arguments[:4], colors, *view, 16, 20, background=backgrounds).color
    for b in range(2):
        one = splat(*arguments[:4], colors[b], *view, 16, 20, background=backgrounds[b]).color
        assert torch.equal(both[b], one[b])


def test_screen_positions_say_where_a_gaussian_should_go():
    """The gradient of the picture's mass right of the middle is positive in x for one that straddles it."""
    view = facing_camera(16, 32)
    means = torch.zeros(1, 3, requires_grad=True)
    rest = torch.ones(1, 4), torch.full((1, 3), 0.05), torch.full((1,), 0.9), torch.ones(1, 3)
    out = splat(means, *rest, *view, 16, 32)
    out.means2d.retain_grad()
    out.opacity[:, :, 16:].sum().backward()
    assert out.means2d.grad[0, 0, 0] > 0.1
    assert out.means2d.grad[0, 0, 1].abs() < 1e-5
    torch.testing.assert_close(means.grad[0, 0], out.means2d.grad[0, 0, 0] * 40.0 / 2.0)


@pytest.mark.parametrize("primitive", ["3d", "2d"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (4096, 3), (3, 4096)])
def test_pictures_of_any_shape(gaussian_twins, primitive, height, width):
    arguments = cloud(3, size=0.08)
    arguments[0][:, :2] *= 0.1
    w2c, intrinsics = facing_camera(height, width)
    assert_like_twin(gaussian_twins, arguments, (w2c, intrinsics), height, width, primitive)


@pytest.mark.parametrize("primitive", ["3d", "2d"])
@pytest.mark.parametrize("kind", ["none", "behind", "transparent"])
def test_nothing_to_see_is_the_background(primitive, kind):
    arguments, view = cloud(0 if kind == "none" else 20), facing_camera(20, 24)
    if kind == "behind":
        arguments[0][:, 2] -= 10.0
    if kind == "transparent":
        arguments[3].fill_(0.001)
    inputs, pictures, out = drawn(arguments, view, 20, 24, primitive, normals=True)
    assert torch.equal(pictures["color"], arguments[5].expand(1, 20, 24, 3))
    assert not any(pictures[name].any() for name in ("opacity", "depth", "normal"))
    assert not out.radii.any()
    backward(pictures, torch.float32)
    assert not any(t.grad.any() for t in inputs[:5])


@pytest.mark.parametrize("primitive", ["3d", "2d"])
def test_what_is_not_finite_is_left_out(primitive):
    arguments, view = cloud(30), cameras(1, 20, 24)
    finite = [t[10:].clone() for t in arguments[:5]]
    expected = splat(*finite, *view, 20, 24, primitive=primitive, background=arguments[5])
    nan, infinite = float("nan"), float("inf")
    arguments[0][0, 0], arguments[0][1, 2] = nan, infinite
    arguments[1][2, 3], arguments[1][3] = nan, 0.0
    arguments[2][4, 1], arguments[2][5, 0] = nan, infinite
    arguments[3][6], arguments[3][7] = nan, infinite
    arguments[4][8, 2], arguments[4][9, 0] = nan, infinite
    inputs, pictures, out = drawn(arguments, view, 20, 24, primitive, normals=True)
    assert not out.radii[0, :10].any()
    torch.testing.assert_close(pictures["color"], expected.color)
    backward(pictures, torch.float32)
    assert all(t.grad.isfinite().all() for t in inputs)
    assert not any(t.grad[:10].any() for t in inputs[:5])


def test_a_flat_gaussian_seen_from_its_edge_is_a_line():
    turned = torch.tensor([[math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0]])
    shape = [torch.zeros(1, 3), turned, torch.full((1, 3), 0.2), torch.ones(1), torch.ones(1, 1)]
    inputs = [t.requires_grad_() for t in shape]
    out = splat(*inputs, *facing_camera(33, 33), 33, 33, primitive="2d")
    out.color.sum().backward()
    rows = out.opacity[0, :, :, 0].sum(-1)
    assert rows[14:19].sum() > 0.99 * rows.sum() > 0.0
    assert all(t.grad.isfinite().all() for t in inputs)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"means": torch.zeros(4, 2)}, "splat.means"),
        ({"rotations": torch.zeros(5, 4)}, "splat.rotations"),
        ({"colors": torch.zeros(2, 4, 3)}, "splat.colors"),
        ({"colors": torch.zeros(4, 0)}, "splat.colors"),
        ({"intrinsics": torch.zeros(1, 4, 4)}, "splat.intrinsics"),
        ({"height": 0}, "splat.size"),
        ({"near": 0.0}, "splat.size"),
        ({"background": torch.zeros(4)}, "splat.background"),
    ],
)
def test_what_cannot_be_used_is_named(change, name):
    means, rotations, scales, opacities, colors, _ = cloud(4)
    w2c, intrinsics = facing_camera(8, 8)
    known = {"means": means, "rotations": rotations, "scales": scales, "opacities": opacities}
    known |= {"colors": colors, "w2c": w2c, "intrinsics": intrinsics, "height": 8, "width": 8}
    with pytest.raises(ConfigError, match=name):
        splat(**(known | change))

import math

import pytest
import torch

from maquette.ops.edges import box_blur, canny


def slow_canny(image, low, high):
    """One pixel after the other; image (C, H, W)."""
    _, height, width = image.shape
    sobel = ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1))
    at = lambda plane, y, x: float(plane[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])
    gradient, size = {}, {}
    for y in range(height):
        for x in range(width):
            best = (-1.0, 0.0, 0.0)
            for plane in image:
                window = [[at(plane, y + j, x + i) for i in (-1, 0, 1)] for j in (-1, 0, 1)]
                gx = sum(sobel[j][i] * window[j][i] for j in range(3) for i in range(3))
                gy = sum(sobel[i][j] * window[j][i] for j in range(3) for i in range(3))
                best = max(best, (abs(gx) + abs(gy), gx, gy), key=lambda one: one[0])
            size[y, x], gradient[y, x] = best[0], best[1:]
    ridges = set()
    for (y, x), (gx, gy) in gradient.items():
        tangent = math.tan(math.pi / 8)
        m = lambda j, i, y=y, x=x: size.get((y + j, x + i), 0.0)
        if abs(gy) < tangent * abs(gx):
            keep = size[y, x] > m(0, -1) and size[y, x] >= m(0, 1)
        elif abs(gx) < tangent * abs(gy):
            keep = size[y, x] > m(-1, 0) and size[y, x] >= m(1, 0)
        else:
            s = -1 if gx * gy < 0 else 1
            keep = size[y, x] > m(-1, -s) and size[y, x] > m(1, s)
        if keep and size[y, x] > low:
            ridges.add((y, x))
    edges = {one for one in ridges if size[one] > high}
    frontier = list(edges)
    while frontier:
        y, x = frontier.pop()
        for near in ((y + j, x + i) for j in (-1, 0, 1) for i in (-1, 0, 1)):
            if near in ridges and near not in edges:
                edges.add(near)
                frontier.append(near)
    found = torch.zeros(height, width, dtype=torch.bool)
    for one in edges:
        found[one] = True
    return found


@pytest.mark.parametrize("shape", [(1, 3, 17, 23), (3, 1, 12, 9)])
def test_edges_are_those_of_the_slow_way(shape):
    generator = torch.Generator().manual_seed(3)
    images = box_blur(torch.rand(shape, generator=generator, dtype=torch.float64), 5)
    found = canny(images, 0.2, 0.4)
    assert found.any() and not found.all()
    assert torch.equal(found, torch.stack([slow_canny(image, 0.2, 0.4) for image in images]))


def test_a_disc_has_one_closed_thin_edge():
    axis = torch.arange(40) - 19.5
    disc = ((axis[:, None] ** 2 + axis**2).sqrt() < 12).float()
    found = canny(box_blur(disc[None, None], 3), 0.2, 0.4)[0]
    radius = (axis[:, None] ** 2 + axis**2).sqrt()[found]
    assert ((radius - 12).abs() < 1.5).all()
    angle = torch.atan2(*(axis[rows] for rows in found.nonzero(as_tuple=True)))
    gaps = angle.sort().values.diff()
    assert 50 < found.sum() < 110 and gaps.max() < 0.15


def test_weak_edges_count_only_where_they_join_strong_ones():
    image = torch.zeros(1, 1, 12, 12)
    image[..., :6, 6:] = 0.2
    image[..., 6:, 6:] = 1.0
    faint = torch.zeros(1, 1, 12, 12)
    faint[..., 6:] = 0.2
    assert canny(image, 0.5, 2.0)[0, 2:5].any(dim=-1).all()
    assert not canny(faint, 0.5, 2.0).any()


def test_flat_and_tiny_pictures_have_no_edges():
    assert not canny(torch.full((2, 3, 5, 4), 0.3), 0.0, 0.0).any()
    assert canny(box_blur(torch.rand(1, 3, 1, 1), 5), 0.1, 0.2).shape == (1, 1, 1)

"""Growing, filling, resizing and sampling pictures."""

import pytest
import torch

from maquette.ops.image import dilate, fill_unpainted, resize, sample_texture


@pytest.fixture
def dots():
    """Two painted texels, red and green, in an empty picture."""
    image, painted = torch.zeros(9, 9, 3), torch.zeros(9, 9, dtype=torch.bool)
    image[2, 2, 0] = image[6, 6, 1] = 1.0
    painted[2, 2] = painted[6, 6] = True
    return image, painted


def test_dilation_grows_by_one_texel_a_step_in_eight_directions(dots):
    image, painted = dots
    grown, now = dilate(image, painted, 1)
    assert now.sum() == 18 and now[1:4, 1:4].all() and now[5:8, 5:8].all()
    assert torch.equal(grown[1:4, 1:4], torch.tensor([1.0, 0, 0]).expand(3, 3, 3))
    assert not grown[~now].any()


def test_dilation_mixes_only_painted_neighbours(dots):
    grown, now = dilate(*dots, 2)
    assert torch.allclose(grown[4, 4], torch.tensor([0.5, 0.5, 0.0]))
    assert torch.allclose(grown[now].sum(-1), torch.ones(int(now.sum())))


def test_painted_texels_never_change(dots):
    image, painted = dots
    for result in (dilate(image, painted, 5)[0], fill_unpainted(image, painted)):
        assert torch.equal(result[painted], image[painted])


@pytest.mark.parametrize("shape", [(9, 9), (8, 16), (5, 13), (1, 7)])
def test_filling_reaches_everything_and_invents_no_value(shape):
    generator = torch.Generator().manual_seed(0)
    image = 0.3 + 0.4 * torch.rand(*shape, 3, generator=generator)
    painted = torch.rand(shape, generator=generator) < 0.2
    painted[0, 0] = True
    filled = fill_unpainted(torch.where(painted[..., None], image, 99.0), painted)
    low, high = image[painted].amin(0), image[painted].amax(0)
    assert ((filled >= low - 1e-5) & (filled <= high + 1e-5)).all()


def test_filling_nothing_or_everything_changes_nothing(dots):
    image, painted = dots
    assert torch.equal(fill_unpainted(image, torch.zeros_like(painted)), image)
    assert torch.equal(fill_unpainted(image, torch.ones_like(painted)), image)


def test_resize_shrinks_by_area_and_keeps_constants():
    image = torch.arange(16.0).reshape(4, 4, 1)
    assert resize(image, 2, 2)[..., 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert torch.allclose(resize(torch.full((3, 5, 3), 0.25), 11, 8), torch.full((11, 8, 3), 0.25))


def test_bilinear_sampling_puts_row_zero_at_the_top():
    texture = torch.tensor([[[0.0], [1.0]], [[2.0], [3.0]]])
    uv = torch.tensor([[0.25, 0.75], [0.75, 0.25], [0.5, 0.5], [0.0, 1.0]])
    assert sample_texture(texture, uv)[:, 0].tolist() == pytest.approx([0.0, 3.0, 1.5, 0.0])

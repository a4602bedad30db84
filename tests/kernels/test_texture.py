"""Textures: known values, and the plain twin."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maquette.core.errors import UserError
from maquette.kernels.texture import texture
from maquette.ops.image import sample_texture

TWINS = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("raster_twins.py"))))
FILTERS = ["nearest", "linear", "linear-mipmap-linear"]


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("boundary", ["wrap", "clamp", "border"])
@pytest.mark.parametrize(("images", "views"), [(1, 1), (1, 3), (3, 3)])
def test_values_and_gradients_equal_the_twin(filter, boundary, images, views):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(images, 13, 7, 4, generator=generator)
    uv = 3 * torch.rand(views, 9, 6, 2, generator=generator) - 1
    slopes = 0.2 * torch.randn(views, 9, 6, 4, generator=generator)
    got = looked_up(texture, image, uv, slopes, filter, boundary)
    wanted = looked_up(TWINS.texture, image.double(), uv.double(), slopes.double(), filter, boundary)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-5)


def looked_up(look_up, image, uv, slopes, filter, boundary):
    image, uv = image.clone().requires_grad_(), uv.clone().requires_grad_()
    out = look_up(image, uv, slopes, filter, boundary)
    weights = torch.rand(out.shape, generator=torch.Generator().manual_seed(5)).to(out)
    gradients = torch.autograd.grad((weights * out).sum(), [image, uv], materialize_grads=True)
    return [out.detach(), *gradients]


def test_texels_are_where_a_mesh_has_them():
    image = torch.rand(1, 5, 7, 3)
    u, v = (torch.arange(7) + 0.5) / 7, 1 - (torch.arange(5) + 0.5) / 5
    centres = torch.stack(torch.meshgrid(u, v, indexing="xy"), -1)[None]
    for filter in ("nearest", "linear"):
        torch.testing.assert_close(texture(image, centres, filter=filter), image)


def test_linear_with_clamp_is_how_the_files_are_read():
    image, uv = torch.rand(6, 4, 3), 1.4 * torch.rand(50, 2) - 0.2
    got = texture(image[None], uv[None, None], boundary="clamp")[0, 0]
    torch.testing.assert_close(got, sample_texture(image, uv))


def test_wrapping_repeats_the_image():
    image, uv = torch.rand(1, 6, 4, 3), torch.rand(1, 5, 5, 2)
    moved = uv + torch.tensor([3.0, -2.0])
    torch.testing.assert_close(texture(image, moved), texture(image, uv), atol=1e-4, rtol=1e-4)


def test_level_of_detail_is_chosen_by_the_footprint():
    """A checkerboard is grey from afar, and itself where a pixel is a texel."""
    board = ((torch.arange(16)[:, None] + torch.arange(16)) % 2).float()[None, ..., None]
    uv = torch.stack(torch.meshgrid(*[(torch.arange(16) + 0.5) / 16] * 2, indexing="xy"), -1)[None]
    one = torch.tensor([1 / 16, 0, 0, 1 / 16]).expand(1, 16, 16, 4)
    near, far = (texture(board, uv, k * one, "linear-mipmap-linear") for k in (1.0, 2.0))
    torch.testing.assert_close(near, board.flip(1))
    torch.testing.assert_close(far, torch.full_like(far, 0.5))
    stretched = torch.tensor([2 / 16, 0, 0, 1e-3]).expand(1, 16, 16, 4)
    torch.testing.assert_close(texture(board, uv, stretched, "linear-mipmap-linear"), far)


def test_places_that_are_no_numbers_do_no_harm():
    uv = torch.tensor([[torch.nan, 0.5], [torch.inf, -torch.inf], [1e30, -1e30]])[None]
    for filter in ("nearest", "linear"):
        for boundary in ("wrap", "clamp", "border"):
            image = torch.rand(1, 4, 4, 2, requires_grad=True)
            texture(image, uv[None], filter=filter, boundary=boundary).nansum().backward()


def test_wrong_arguments_are_refused():
    image, uv = torch.rand(1, 4, 4, 3), torch.rand(2, 3, 3, 2)
    with pytest.raises(UserError, match="uv_jacobian"):
        texture(image, uv, filter="linear-mipmap-linear")
    with pytest.raises(UserError, match="images"):
        texture(torch.rand(3, 4, 4, 3), uv)
    with pytest.raises(UserError, match="images"):
        texture(torch.rand(1, 0, 4, 3), uv)

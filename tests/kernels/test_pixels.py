"""The same kernels, launched as on a GPU: a thread a pixel, one set of sums."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maquette.kernels import pixels
from maquette.kernels import rasterize as rasterizer
from maquette.kernels.rasterize import antialias, interpolate, rasterize
from maquette.kernels.texture import texture

SCENES = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_rasterize.py"))))


def picture_and_gradients(name, views, shared):
    clip, faces, _, vertices = SCENES.scene(name, views, 70, 61)
    values = torch.cat([vertices, vertices.square()], 1)
    leaves = [clip, values if shared else values.expand(views, -1, -1).clone()]
    leaves += [torch.rand(1 if shared else views, 8, 8, 2, generator=torch.Generator().manual_seed(0))]
    clip, values, image = (leaf.requires_grad_() for leaf in leaves)
    seen = rasterize(clip, faces, 70, 61)
    shown = interpolate(values, seen, faces)
    shown = torch.cat([shown, seen.depth, texture(image, shown[..., :2])], -1)
    out = antialias(shown, seen, clip, faces)
    return [seen.face, out, *torch.autograd.grad(out.square().sum(), leaves)]


@pytest.mark.parametrize("name", SCENES.SCENES)
@pytest.mark.parametrize(("views", "shared"), [(1, True), (3, True), (3, False)])
def test_threads_of_one_pixel_do_what_threads_of_many_do(name, views, shared, monkeypatch, set_threads):
    set_threads(3)
    several = picture_and_gradients(name, views, shared)
    for module in (pixels, rasterizer):
        monkeypatch.setattr(module, "is_gpu", lambda device: True)
    single = picture_and_gradients(name, views, shared)
    assert torch.equal(several[0], single[0]) and (several[0] >= 0).any()
    for one, other in zip(several[1:], single[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())

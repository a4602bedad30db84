"""Texels and the faces that cover them."""

import pytest
import torch

from maquette.core.errors import UserError
from maquette.kernels.uv_raster import rasterize_uv

QUAD = torch.tensor([[0.2, 0.1], [0.8, 0.1], [0.8, 0.6], [0.2, 0.6]])
FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])


@pytest.mark.parametrize(("height", "width"), [(60, 60), (33, 70)])
def test_each_texel_knows_its_face_and_place(height, width):
    hits = rasterize_uv(QUAD, FACES, height, width)
    v = 1.0 - (torch.arange(height) + 0.5) / height
    u = (torch.arange(width) + 0.5) / width
    rows, columns = torch.meshgrid(v, u, indexing="ij")
    inside = (columns > 0.2) & (columns < 0.8) & (rows > 0.1) & (rows < 0.6)
    assert torch.equal(hits.mask.reshape(height, width), inside)
    places = torch.stack([columns, rows], -1)[inside]
    torch.testing.assert_close(hits.interpolate(QUAD, FACES)[hits.mask], places, atol=1e-5, rtol=0)
    below = (places - QUAD[0]) @ torch.tensor([-0.5, 0.6]) < 0
    assert torch.equal(hits.face[hits.mask] == 0, below)


def test_answers_are_those_of_rays_from_above():
    hits = rasterize_uv(QUAD, FACES.flip(1), 8, 8)
    assert (hits.t[hits.mask] == 1).all() and torch.isinf(hits.t[~hits.mask]).all()
    assert torch.equal(hits.normal[:, 2], hits.mask.float()) and not hits.normal[:, :2].any()


def test_where_faces_overlap_the_first_one_is_taken():
    hits = rasterize_uv(QUAD, torch.cat([FACES, FACES]), 16, 16)
    assert (hits.face[hits.mask] < 2).all()


def test_a_texture_coordinate_that_is_not_there_is_refused():
    with pytest.raises(UserError):
        rasterize_uv(QUAD, FACES + 9, 4, 4)

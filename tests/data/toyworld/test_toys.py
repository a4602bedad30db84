"""Every toy: its size, its colours, its front; and the words of its captions."""

import random

import numpy as np
import pytest
import torch

from maquette.data.toyworld.captions import EMPTY_SHARE, caption, varied_caption, words
from maquette.data.toyworld.kinds import FRONTED, KINDS
from maquette.data.toyworld.mesh import RADIUS, colored_toy, toy_mesh
from maquette.data.toyworld.palette import PALETTE
from maquette.data.toyworld.render import orbit_views, render, sample_views

ALL = pytest.mark.parametrize("kind", list(KINDS))


def difference(a, b):
    return (a.float() - b.float()).abs().mean().item() / 255.0


def test_there_are_enough_kinds_colors_and_fronts():
    assert len(KINDS) >= 16
    assert len(PALETTE) >= 8
    assert len(FRONTED) >= 6
    assert set(KINDS) >= FRONTED


@ALL
def test_toy_stays_inside_its_ball(kind):
    reach = np.linalg.norm(toy_mesh(kind).vertices, axis=-1).max()
    assert 0.75 < reach <= RADIUS + 1e-6


@ALL
def test_captioned_color_is_what_most_of_the_surface_shows(kind):
    """Of the pixels that belong to the toy, from all sides, a good part changes with the caption."""
    views = orbit_views([0.0, 90.0, 180.0, -90.0], elevation_deg=30.0)
    red, blue = render(kind, "red", views, 32), render(kind, "blue", views, 32)
    toy = (red != 255).any(1) | (blue != 255).any(1)
    captioned = ((red.int() - blue.int()).abs().amax(1) > 40)[toy].float().mean().item()
    assert captioned > (
        0.4 if kind in ("mushroom", "snowman", "boat", "cactus", "icecream", "airplane") else 0.5
    )


@pytest.mark.parametrize("kind", sorted(FRONTED))
def test_front_differs_from_back_and_left_from_right(kind):
    front, right, back, left = render(kind, "green", orbit_views([0.0, 90.0, 180.0, -90.0]), 64)
    assert difference(front, back) > 0.01
    assert difference(right, left) > 0.01


def test_right_of_a_car_shows_its_front_on_the_left():
    """The camera at +y sees +x on its left: the head lamps (yellow) are in the left half."""
    picture = render("car", "blue", orbit_views([90.0], elevation_deg=0.0), 64)[0].float() / 255.0
    lamp = (picture[0] > 0.6) & (picture[1] > 0.6) & (picture[2] < 0.6)
    columns = lamp.nonzero()[:, 1]
    assert len(columns) > 0
    assert columns.float().mean() < 20


def test_chair_has_its_back_behind():
    """Everything high up belongs to the back rest, which stands at -x."""
    vertices = colored_toy("chair", "red").vertices
    top = vertices[vertices[:, 2] > 0.5]
    assert (top[:, 0] < 0).all()


def test_colors_are_far_apart():
    colors = torch.tensor(list(PALETTE.values()))
    distances = torch.cdist(colors, colors) + torch.eye(len(colors))
    assert distances.min() > 0.3


def test_unknown_background_pixels_are_the_background():
    views = sample_views(4, np.random.default_rng(0))
    pictures = render("tree", "green", views, 32)
    corner = pictures[:, :, 0, 0].float() / 255.0
    torch.testing.assert_close(corner, torch.from_numpy(views.background), atol=1 / 255, rtol=0)


def test_rendering_in_parts_gives_the_same_pictures():
    views = sample_views(3, np.random.default_rng(5))
    together = render("duck", "yellow", views, 32)
    alone = torch.cat([render("duck", "yellow", views[i : i + 1], 32) for i in range(3)])
    assert torch.equal(together, alone)


def test_caption():
    assert caption("mushroom", "red", -45.0, 40.0) == "a red mushroom, front left view, high"
    assert caption("car", "orange", 90.0, 0.0) == "an orange car, right view, low"


def test_varied_captions_use_known_words_and_are_sometimes_empty():
    rng = random.Random(0)
    texts = [varied_caption("an orange car, back left view, overhead", rng) for _ in range(2000)]
    known = words(["car"], ["orange"])
    assert {word for text in texts for word in text.replace(",", "").split()} <= known
    assert texts.count("") / len(texts) == pytest.approx(EMPTY_SHARE, abs=0.03)
    assert sum("left" in text for text in texts) / len(texts) > 0.8
    assert any(text.startswith("a photo of an orange car, ") for text in texts)


def test_colored_toy_has_the_colors_of_the_caption():
    mesh = colored_toy("tree", "purple")
    assert mesh.n_faces == len(toy_mesh("tree").faces)
    purple = torch.tensor(PALETTE["purple"])
    assert (mesh.vertex_colors - purple).abs().amax(-1).lt(1e-6).float().mean() > 0.5

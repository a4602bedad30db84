import numpy as np
import pytest
import torch

from maquette.core.errors import UserError
from maquette.data.toyworld.captions import name
from maquette.data.toyworld.mesh import colored_toy, toy_mesh
from maquette.evaluation.attribution import attribute, roc_area
from maquette.models.prompt_processors.directions import toyworld_views
from maquette.ops.mesh import face_areas

PRIOR = "maquette/toyworld"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path / "cache"))


def test_the_area_under_the_curve_is_the_chance_of_the_right_order():
    values = torch.tensor([0.1, 0.4, 0.35, 0.8, 0.4])
    truth = torch.tensor([False, False, True, True, True])
    even = torch.ones(5)
    pairs = [(values[i] > values[j]) + 0.5 * (values[i] == values[j]) for i in (2, 3, 4) for j in (0, 1)]
    assert roc_area(values, truth, even) == pytest.approx(float(sum(pairs)) / 6)
    weights = torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0])
    assert roc_area(values, truth, weights) == 1.0


@pytest.mark.parametrize(("kind", "color"), [("mushroom", "red"), ("cactus", "blue"), ("airplane", "yellow")])
def test_the_color_word_finds_the_part_of_that_color(kind, color):
    toy, mesh = toy_mesh(kind), colored_toy(kind, color)
    colored = torch.from_numpy(np.isnan(toy.accents[:, 0])).repeat_interleave(3)
    area = face_areas(mesh).repeat_interleave(3)
    found = attribute(mesh, name(kind, color), [color], PRIOR, toyworld_views())[color]
    seen = found.seen
    assert roc_area(found.vertices[seen], colored[seen], area[seen]) >= 0.8
    assert found.vertices.min() >= 0 and found.vertices.max() <= 1
    assert found.maps.shape == found.views.shape[:3]


def test_a_word_that_the_prompt_does_not_have_is_refused():
    with pytest.raises(UserError, match="'boat'"):
        attribute(colored_toy("car", "red"), "a red car", ["boat"], PRIOR, toyworld_views())

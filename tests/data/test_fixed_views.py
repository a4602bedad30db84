import math

import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.core.random import RandomStreams
from maquette.core.registry import find
from maquette.data.fixed_views import (
    FixedViewsConfig,
    FixedViewsDataModule,
    FixedViewsStream,
    fixed_cameras,
)
from maquette.data.loading import BatchSource, Place

CFG = FixedViewsConfig(batch_size=5, azimuth_deg=[0.0, 90.0], elevation_deg=[20.0], camera_distance=[2.0])


HERE = Place()


def stream(place=HERE, first=0):
    return FixedViewsStream(CFG, BatchSource(RandomStreams(3), lambda: first, place))


def test_pictures_take_the_views_in_turns():
    cameras = fixed_cameras(CFG)
    assert cameras.azimuth.tolist() == [0.0, 90.0, 0.0, 90.0, 0.0]
    assert cameras.elevation.tolist() == [20.0] * 5 and cameras.rng is None
    level, up = 2 * math.cos(math.radians(20)), 2 * math.sin(math.radians(20))
    expected = torch.tensor([[level, 0.0, up], [0.0, level, up]])
    torch.testing.assert_close(cameras.camera_positions[:2], expected, atol=1e-6, rtol=1e-6)


def test_every_step_has_the_same_cameras_and_draws_of_its_own():
    batches = iter(stream())
    first, second = next(batches), next(batches)
    again = next(iter(stream(first=1)))
    assert torch.equal(first.c2w, second.c2w) and (first.step, second.step) == (0, 1)
    draws = [one.rng.normal("noise", 2) for one in (first, second, again)]
    assert torch.equal(draws[1], draws[2]) and (draws[0] != draws[1]).all()


def test_ranks_and_parts_of_a_step_draw_apart():
    places = [Place(rank=rank, world=2, accumulate=2) for rank in (0, 1)]
    index = [stream(place).batch(4, part).index.tolist() for place in places for part in (0, 1)]
    assert sorted(torch.tensor(index).flatten().tolist()) == list(range(80, 100))


def test_evaluation_sees_the_cameras_once():
    data = FixedViewsDataModule({"batch_size": 2, "azimuth_deg": [10.0, 20.0]})
    (batch,) = list(data.val_dataloader())
    assert batch.azimuth.tolist() == [10.0, 20.0] and batch.index.tolist() == [0, 1]
    assert find("fixed-views-datamodule", "data") is FixedViewsDataModule


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"azimuth_deg": []}, {"camera_distance": [1.0, 0.0]}, {"fovy_deg": [180.0]}],
)
def test_wrong_values(wrong):
    with pytest.raises(ConfigError, match=f"data.{next(iter(wrong))}"):
        FixedViewsDataModule(wrong)

import itertools
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from maquette.core.errors import ConfigError
from maquette.core.random import RandomStreams
from maquette.data.loading import (
    BatchSource,
    EvaluationShare,
    KeyedStream,
    LoaderConfig,
    Place,
    cycle,
    seed_worker,
)
from maquette.data.random_camera import RandomCameraConfig, RandomCameraDataModule, RandomCameraStream

MILESTONES = {
    "height": [4, 6, 8],
    "width": [4, 6, 8],
    "batch_size": [1, 2, 1],
    "resolution_milestones": [3, 5],
}


def batches(count, **loading):
    data = RandomCameraDataModule({**MILESTONES, "progressive_until": 6, **loading}, RandomStreams(5))
    return list(itertools.islice(data.train_dataloader(), count))


@pytest.mark.parametrize("loading", [{"num_workers": 2}, {"num_workers": 2, "prefetch_factor": 5}])
def test_workers_and_prefetching_change_no_bit(loading):
    for step, (alone, ahead) in enumerate(zip(batches(7), batches(7, **loading), strict=True)):
        assert alone.step == ahead.step == step
        assert alone.height == [4, 4, 4, 6, 6, 8, 8][step]
        assert alone.keys() == ahead.keys()
        for name, value in alone.items():
            same = (
                torch.equal(value, ahead[name]) if isinstance(value, torch.Tensor) else value == ahead[name]
            )
            assert same, (step, name)


def test_batches_of_two_ranks_are_those_of_one_with_twice_the_size():
    def stream(size, place):
        cfg = RandomCameraConfig(height=4, width=4, batch_size=size)
        return RandomCameraStream(cfg, BatchSource(RandomStreams(5), lambda: 0, place))

    together = stream(4, Place()).batch(7)
    parts = [stream(2, Place(rank, 2)).batch(7) for rank in range(2)]
    for name in ("c2w", "light_positions", "fovy", "index"):
        assert torch.equal(together[name], torch.cat([part[name] for part in parts])), name


@pytest.mark.parametrize("count, world", [(5, 2), (4, 2), (1, 2), (7, 3), (2, 5)])
def test_every_rank_has_as_many_views_in_order_and_none_is_left_out(count, world):
    shares = [list(EvaluationShare(count, rank, world)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    taken = [one for turn in zip(*shares, strict=True) for one in turn]
    assert taken[:count] == list(range(count)) and set(taken) == set(range(count))
    assert len(taken) - count < world


class Drawing(KeyedStream[tuple[float, float, float]]):
    """Batches of a library that draws from the global generators."""

    def batch(self, step, part=0):
        return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_what_libraries_draw_in_workers_is_keyed_by_the_step():
    def drawn(workers, first):
        stream = Drawing(BatchSource(RandomStreams(5), lambda: first, Place()))
        return list(itertools.islice(DataLoader(stream, batch_size=None, num_workers=workers), 4))

    assert drawn(2, 0) == drawn(1, 0) and drawn(2, 2)[:2] == drawn(1, 0)[2:]
    assert len(set(map(tuple, drawn(2, 0)))) == 4


def test_workers_are_seeded_by_number_and_rank():
    threads = torch.get_num_threads()
    drawn = []
    for number, rank in ((0, 0), (1, 0), (0, 1), (0, 0)):
        seed_worker(number, seed=3, rank=rank)
        drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
    torch.set_num_threads(threads)
    assert drawn[0] == drawn[3] and len(set(drawn)) == 3


def test_cycle_asks_anew_in_every_round():
    rounds = iter([[1, 2], [3], [4]])

    class Changing:
        def __iter__(self):
            return iter(next(rounds))

    assert list(itertools.islice(cycle(Changing()), 4)) == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="nothing"):
        next(cycle([]))


@pytest.mark.parametrize("options", [{"num_workers": -1}, {"prefetch_factor": 0}])
def test_numbers_that_cannot_be_are_refused(options):
    with pytest.raises(ConfigError, match=f"data.{next(iter(options))}"):
        LoaderConfig(**options)

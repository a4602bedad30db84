"""Counted randomness: what a sample draws depends on its own index, and on nothing else."""

import math
import pickle
import random

import numpy as np
import pytest
import torch

from maquette.core.random import RandomStreams, StepRandom, named_generator, seed_everything, seed_global

DRAWS = {
    "uniform": lambda rng: rng.uniform("x", 3, 2, low=-1.0, high=4.0),
    "normal": lambda rng: rng.normal("x", 5),
    "integers": lambda rng: rng.integers("x", -3, 7, 4),
    "scalar": lambda rng: rng.uniform("x"),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_a_row_does_not_depend_on_its_batch(draw):
    streams = RandomStreams(seed=11)
    together = draw(streams.at(5, [40, 41, 42]))
    alone = torch.cat([draw(streams.at(5, [i])) for i in (40, 41, 42)])
    swapped = draw(streams.at(5, torch.tensor([42, 7, 40])))
    assert torch.equal(together, alone)
    assert torch.equal(swapped[[2, 0]], together[[0, 2]])
    assert torch.equal(draw(streams.at(5, [40, 41, 42]).rows([1])), together[1:2])


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_the_same_call_gives_the_same_numbers_in_any_order(draw):
    rng = RandomStreams(seed=1).at(2, [3, 4])
    first = draw(rng)
    rng.normal("another", 1000)
    torch.rand(10)
    assert torch.equal(draw(pickle.loads(pickle.dumps(rng))), first)


def test_seed_name_step_and_sample_all_matter():
    def draw(seed=0, name="a", step=0, index=0):
        return float(RandomStreams(seed).at(step, [index]).uniform(name))

    values = {draw(), draw(seed=1), draw(name="b"), draw(step=1), draw(index=1)}
    assert len(values) == 5


def test_a_longer_draw_begins_like_a_shorter_one():
    rng = RandomStreams(0).at(0, [1, 2])
    assert torch.equal(rng.normal("n", 9)[:, :4], rng.normal("n", 4))
    assert torch.equal(rng.uniform("n", 9)[:, :4], rng.uniform("n", 4))


def test_a_spread_draw_has_one_sample_in_each_part_whoever_draws_it():
    streams = RandomStreams(5)
    whole = streams.at(3, range(18, 24)).spread("t", 6)
    assert (whole * 6).floor().tolist() == list(range(6))
    assert torch.equal(streams.at(3, [20, 21]).spread("t", 6), whole[2:4])


@pytest.mark.parametrize("together", [1, 3, 4, 6, 1000])
def test_a_spread_draw_stays_below_the_end_of_its_part(together, monkeypatch):
    largest = 1.0 - 2.0**-24
    monkeypatch.setattr(StepRandom, "uniform", lambda self, name: torch.full((len(self.index),), largest))
    drawn = RandomStreams(0).at(0, range(together)).spread("t", together)
    ends = torch.arange(1, together + 1) / together
    assert (drawn < ends).all() and (drawn > ends - 1e-6).all()


def test_draws_leave_the_global_generators_alone():
    seed_everything(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    RandomStreams(0).at(0, [0]).normal("n", 100)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def test_uniform_fills_its_range_evenly():
    values = RandomStreams(0).at(0, range(20)).uniform("u", 5000, low=-2.0, high=2.0)
    assert values.dtype == torch.float32
    assert values.min() >= -2.0 and values.max() < 2.0
    counts = torch.histc(values, bins=20, min=-2.0, max=2.0)
    assert float((counts - 5000).pow(2).sum() / 5000) < 43.8  # chi square, 19 degrees of freedom, p = 0.001


def test_normal_has_the_moments_of_a_standard_normal():
    values = RandomStreams(0).at(0, range(20)).normal("n", 5000).double()
    n = values.numel()
    assert abs(values.mean()) < 4 / math.sqrt(n)
    assert abs(values.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((values**4).mean() - 3) < 4 * math.sqrt(96 / n)


def test_samples_and_steps_are_not_correlated():
    streams = RandomStreams(0)
    rows = torch.stack([streams.at(step, range(8)).normal("n", 2000) for step in range(4)]).reshape(32, -1)
    correlation = torch.corrcoef(rows) - torch.eye(32)
    assert correlation.abs().max() < 5 / math.sqrt(2000)


def test_integers_reach_both_ends_and_nothing_beyond():
    values = RandomStreams(0).at(0, range(10)).integers("t", 3, 6, 400)
    assert values.dtype == torch.int64
    assert set(values.flatten().tolist()) == {3, 4, 5, 6}
    assert set(RandomStreams(0).at(0, [0]).integers("t", 5, 5, 10).flatten().tolist()) == {5}


def test_shared_is_the_same_for_every_batch_of_a_step():
    streams = RandomStreams(4)
    assert streams.at(7, [0, 1]).shared("coin") == streams.at(7, [900]).shared("coin")
    assert streams.at(7, [0]).shared("coin") != streams.at(8, [0]).shared("coin")


def test_every_sample_has_a_31_bit_key_of_its_own():
    streams = RandomStreams(4)
    keys = {key for step in range(100) for key in streams.at(step, [step % 3, 9]).keys("rays")}
    assert len(keys) == 200
    assert all(0 <= key < 2**31 for key in keys)
    assert streams.at(1, [5, 6]).keys("rays") == [streams.at(1, [i]).keys("rays")[0] for i in (5, 6)]


def test_initialisation_is_keyed_by_name():
    def draw(seed, name):
        return torch.rand(4, generator=named_generator(seed, name))

    assert torch.equal(draw(0, "geometry.table"), draw(0, "geometry.table"))
    assert not torch.equal(draw(0, "geometry.table"), draw(0, "geometry.bias"))
    assert not torch.equal(draw(0, "geometry.table"), draw(1, "geometry.table"))


def test_seeding_covers_all_global_generators_and_the_rank():
    def draw(rank):
        seed_everything(5, rank)
        return float(torch.rand(())), float(np.random.rand()), random.random()

    assert draw(0) == draw(0)
    assert all(a != b for a, b in zip(draw(0), draw(1), strict=True))


def test_global_generators_draw_by_step():
    def drawn(*where):
        seed_global(*where)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    first = drawn(0, "train/0", 5)
    torch.rand(7)
    assert drawn(0, "train/0", 5) == first
    others = [
        drawn(1, "train/0", 5),
        drawn(0, "test/0", 5),
        drawn(0, "train/0", 6),
        drawn(0, "train/0", 5, 1),
    ]
    assert all(a != b for other in others for a, b in zip(first, other, strict=True))

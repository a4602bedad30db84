import math

import pytest
import torch

from maquette.core.random import RandomStreams
from maquette.models.geometry.gaussian_densify import due, weighted_choice
from maquette.models.geometry.gaussian_rows import Rows, kept
from maquette.models.geometry.gaussian_splatting import GaussianSplatting

RNG = RandomStreams(3).at(50, [0])
EVERY = {
    "init_num_pts": 12,
    "densify_from_iter": 0,
    "prune_from_iter": 0,
    "densify_grad_threshold": 1.0,
    "split_thresh": 0.1,
}


def cloud(**options: object) -> GaussianSplatting:
    made = GaussianSplatting({**EVERY, **options})
    with torch.no_grad():
        made._scaling.fill_(math.log(0.01))
    return made


def pull(made: GaussianSplatting, *rows: int) -> None:
    """Let the screen have pulled some rows: 4 pixels of 8 are one unit of NDC."""
    gradient = torch.zeros(2, made.n, 2)
    gradient[:, list(rows), 0] = 0.3
    made.observe(gradient, torch.full((2, made.n), 3, dtype=torch.int32), 4, 8)


def test_due() -> None:
    assert [step for step in range(12) if due(step, 2, 10, 3)] == [3, 6, 9]


def test_rows_follow_each_other() -> None:
    first = Rows(torch.tensor([2, 0, 0]), torch.tensor([False, False, True]))
    second = kept(torch.tensor([False, True, True]))
    both = first.then(second)
    assert both.source.tolist() == [0, 0] and both.fresh.tolist() == [False, True]
    assert first.then(None) is first


def test_screen_gradients_are_means_over_the_views_that_see_a_row() -> None:
    made = cloud()
    gradient = torch.zeros(3, made.n, 2)
    gradient[:, 0] = torch.tensor([0.3, 0.4])
    radii = torch.full((3, made.n), 5, dtype=torch.int32)
    radii[2, 0] = 0
    made.observe(gradient, radii, 2, 2)
    assert made.gradient_sum[0] == pytest.approx(1.0) and made.times_seen[0] == 2
    assert made.largest_radius[0] == 5
    made.observe(gradient, radii * 2, 4, 2)
    assert made.gradient_sum[0] == pytest.approx(1.0 + 2 * math.hypot(0.3, 0.8))
    assert made.times_seen[0] == 4 and made.largest_radius[0] == 10


def test_small_ones_are_cloned_and_large_ones_split() -> None:
    made = cloud()
    with torch.no_grad():
        made._scaling[5] = math.log(0.2)
    before = made._xyz.detach().clone()
    pull(made, 2, 5)
    rows = made.evolve(0, 50, RNG)
    assert (
        made.n == 14 and rows.source.tolist()[-3:] == [2, 5, 5] and rows.fresh.tolist()[-4:] == [0, 1, 1, 1]
    )
    assert torch.equal(made._xyz[:11], before[[i for i in range(12) if i != 5]])
    assert torch.equal(made._xyz[11], before[2])
    halves = made._xyz[12:]
    assert not torch.equal(halves[0], halves[1]) and bool(((halves - before[5]).norm(dim=-1) < 1.0).all())
    torch.testing.assert_close(made._scaling[12:].exp(), torch.full((2, 3), 0.2 / 1.6))
    assert made.gradient_sum.sum() == 0 and len(made.times_seen) == 14


def test_halves_of_a_flat_one_stay_in_its_plane() -> None:
    made = cloud()
    made.flatten()
    with torch.no_grad():
        made._scaling[5, :2] = math.log(0.2)
    before = made._xyz[5].detach().clone()
    pull(made, 5)
    made.evolve(0, 50, RNG)
    offsets = made._xyz[11:] - before
    assert made.n == 13 and bool((offsets[:, :2].abs() > 0.01).any()) and offsets[:, 2].abs().max() < 1e-4


def test_parameters_keep_their_identity_and_lose_their_gradient() -> None:
    made = cloud()
    identity = {name: id(one) for name, one in made.row_parameters.items()}
    made._xyz.grad = torch.ones_like(made._xyz)
    pull(made, 0)
    made.evolve(0, 50, RNG)
    assert {name: id(one) for name, one in made.row_parameters.items()} == identity
    assert made._xyz.grad is None
    made._xyz.sum().backward()
    assert made._xyz.grad.shape == (13, 3)


def test_draws_depend_on_seed_and_step_only() -> None:
    def split(step: int) -> torch.Tensor:
        made = cloud(split_thresh=0.001)
        pull(made, 1, 2)
        made.evolve(0, 50, RandomStreams(3).at(step, [0]))
        return made._xyz.detach()

    torch.manual_seed(0)
    first = split(50)
    torch.manual_seed(0)
    again = split(50)
    torch.manual_seed(0)
    assert torch.equal(first, again) and not torch.equal(first, split(100))


def test_never_more_than_max_num_and_the_strongest_first() -> None:
    made = cloud(max_num=13)
    pull(made, 1, 2, 3)
    pull(made, 2)
    with torch.no_grad():
        made.times_seen.fill_(1.0)
    assert made.evolve(0, 50, RNG).source.tolist()[-1] == 2 and made.n == 13
    pull(made, 1)
    assert made.evolve(0, 50, RNG) is None
    assert GaussianSplatting({"init_num_pts": 50, "max_num": 20}).n == 20


def test_transparent_and_oversized_ones_are_pruned() -> None:
    made = cloud(radii2d_thresh=50)
    with torch.no_grad():
        made._opacity[[1, 4]] = torch.logit(torch.tensor(0.004))
    made.largest_radius[7] = 51
    stay = [0, 2, 3, 5, 6, 8, 9, 10, 11]
    rows = made.evolve(0, 50, RNG)
    assert rows.source.tolist() == stay and not rows.fresh.any() and made.n == 9


def test_big_points_are_pruned_where_asked() -> None:
    for asked, left in ((False, 12), (True, 11)):
        made = cloud(prune_big_points=asked)
        made.largest_radius.fill_(10.0)
        made.largest_radius[0] = 100.0
        made.evolve(0, 50, RNG)
        assert made.n == left


def test_stray_ones_are_pruned_where_asked() -> None:
    for asked, left in ((False, 12), (True, 11)):
        made = cloud(prune_outside=asked, radius=0.9)
        with torch.no_grad():
            made._xyz[5] = torch.tensor([0.0, -0.91, 0.0])
        made.evolve(0, 50, RNG)
        assert made.n == left


def test_the_most_opaque_one_stays() -> None:
    made = cloud()
    with torch.no_grad():
        made._opacity.fill_(-20.0)
        made._opacity[3] = -19.0
    made.evolve(0, 50, RNG)
    assert made.n == 1 and made._opacity.item() == -19.0


def test_opacities_fade_at_a_reset() -> None:
    made = cloud(opacity_reset_interval=100)
    made.evolve(0, 50, RNG)
    torch.testing.assert_close(torch.sigmoid(made._opacity), torch.full((12, 1), 0.1))
    version = made._opacity._version
    rows = made.evolve(0, 100, RNG)
    torch.testing.assert_close(torch.sigmoid(made._opacity), torch.full((12, 1), 0.09))
    assert made._opacity._version > version and rows.reset == {"_opacity"}
    assert rows.source.tolist() == list(range(12)) and not rows.fresh.any()


def test_nothing_happens_outside_of_its_time() -> None:
    made = cloud(densify_until_iter=100, prune_until_iter=80)
    pull(made, 0)
    assert made.evolve(0, 49, RNG) is None and made.evolve(0, 100, RNG) is None
    assert made.observes(99) and not made.observes(100)


def test_weighted_choice() -> None:
    weights = torch.tensor([0.0, 1.0, 0.0, 3.0])
    picked = weighted_choice(weights, torch.tensor([0.0, 0.2, 0.3, 0.999999]))
    assert picked.tolist() == [1, 1, 3, 3]

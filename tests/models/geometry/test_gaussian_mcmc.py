import torch

from maquette.core.random import RandomStreams
from maquette.models.geometry.gaussian_splatting import GaussianSplatting
from maquette.ops.gaussians import relocated

RNG = RandomStreams(3).at(50, [0])


def cloud(**options: object) -> GaussianSplatting:
    settings = {"init_num_pts": 20, "densify_from_iter": 0, "strategy": "mcmc", "mcmc_noise_lr": 0.0}
    return GaussianSplatting({**settings, "max_num": 20, **options})


def test_dead_ones_move_to_a_living_one_and_share_its_light() -> None:
    made = cloud()
    with torch.no_grad():
        made._opacity.fill_(-10.0)
        made._opacity[7] = torch.logit(torch.tensor(0.8))
    before = made.gaussians()
    rows = made.evolve(0, 50, RNG)
    assert made.n == 20 and rows.source.tolist() == [7] * 20 and rows.fresh.all()
    opacity, scales = relocated(before.opacities[7:8], before.scales[7:8], torch.tensor([20]))
    found = made.gaussians()
    torch.testing.assert_close(found.opacities, opacity.expand(20))
    torch.testing.assert_close(found.scales, scales.expand(20, 3))
    assert torch.equal(found.means, before.means[7].expand(20, 3))


def test_living_ones_that_were_not_chosen_are_left_alone() -> None:
    made = cloud()
    with torch.no_grad():
        made._opacity[3] = -10.0
    before = made.gaussians()
    rows = made.evolve(0, 50, RNG)
    chosen = int(rows.source[3])
    assert chosen != 3 and rows.fresh.nonzero()[:, 0].tolist() == sorted([3, chosen])
    others = [i for i in range(20) if i not in (3, chosen)]
    assert torch.equal(made.gaussians().opacities[others], before.opacities[others])


def test_number_grows_to_its_limit() -> None:
    made = cloud(max_num=22, mcmc_growth=0.06)
    assert made.evolve(0, 50, RNG).source.shape == (21,)
    assert made.evolve(0, 50, RNG).source.shape == (22,)
    assert made.evolve(0, 50, RNG) is None and made.n == 22


def test_small_clouds_grow_by_one_or_not_at_all() -> None:
    made = cloud(max_num=22, mcmc_growth=0.01)
    assert made.evolve(0, 50, RNG).source.shape == (21,)
    assert cloud(max_num=22, mcmc_growth=0.0).evolve(0, 50, RNG) is None


def test_noise_moves_transparent_ones_along_their_shape() -> None:
    made = cloud(mcmc_noise_lr=100.0, position_lr=[0, 0.01, 0.01, 100])
    with torch.no_grad():
        made._opacity[:10] = -10.0
        made._opacity[10:] = 3.0
        made._scaling[:, 2] = -20.0
        made._scaling[:, :2] = -2.0
    before = made._xyz.detach().clone()
    assert made.evolve(0, 51, RNG) is None
    moved = (made._xyz - before).abs()
    assert bool((moved[:10, :2] > 1e-6).all()) and bool((moved[:10, 2] < 1e-6).all())
    assert bool((moved[10:] < 1e-6).all()) and not made.observes(0)


def test_without_light_nothing_is_relocated() -> None:
    made = cloud()
    with torch.no_grad():
        made._opacity.fill_(-20.0)
    assert made.evolve(0, 50, RNG) is None

import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.kernels.occupancy import RaySamples, march_rays

AABB = torch.tensor([-1.0, -1.0, -0.5, 1.0, 1.0, 0.5])


def some_rays(rays: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    origins = torch.randn(rays, 3, generator=generator) * 1.5
    targets = torch.rand(rays, 3, generator=generator) - 0.5
    return origins, torch.nn.functional.normalize(targets - origins, dim=-1)


def some_grid() -> torch.Tensor:
    return torch.rand(7, 5, 6, generator=torch.Generator().manual_seed(1)) > 0.6


def of_ray(samples: RaySamples, ray: int) -> torch.Tensor:
    first, count = samples.packed[ray].tolist()
    assert samples.ray_indices[first : first + count].eq(ray).all()
    run = slice(first, first + count)
    return torch.stack([samples.t_starts[run], samples.t_ends[run]], -1)


@pytest.mark.parametrize(("near", "far"), [(0.0, 1e10), (1.2, 2.1)])
def test_samples_are_those_of_a_march_that_jumps_nothing(twins, near, far):
    origins, directions = some_rays(60)
    samples = march_rays(origins, directions, some_grid(), AABB, 0.0371, near, far)
    for ray in range(60):
        wanted = twins.march_ray(origins[ray], directions[ray], some_grid(), AABB, 0.0371, near, far)
        wanted = torch.tensor(wanted).view(-1, 2)
        torch.testing.assert_close(of_ray(samples, ray), wanted, rtol=1e-4, atol=1e-5)
    assert len(samples) > 300


def test_full_grid_fills_the_chord():
    origin, direction = torch.tensor([[3.0, 0.1, 0.1]]), torch.tensor([[-1.0, 0.0, 0.0]])
    samples = march_rays(origin, direction, torch.ones(4, 4, 4).bool(), AABB, 0.01)
    assert len(samples) == 200
    assert samples.t_starts[0] == pytest.approx(2.0) and samples.t_ends[-1] == pytest.approx(4.0, abs=1e-4)
    torch.testing.assert_close(samples.t_middles, 2.005 + 0.01 * torch.arange(200), rtol=0, atol=1e-4)


def test_jitter_depends_on_key_and_ray_only():
    origins, directions = some_rays(40)
    plain = march_rays(origins, directions, torch.ones(3, 3, 3).bool(), AABB, 0.05)
    one = march_rays(origins, directions, torch.ones(3, 3, 3).bool(), AABB, 0.05, key=11)
    again = march_rays(origins[:20], directions[:20], torch.ones(3, 3, 3).bool(), AABB, 0.05, key=11)
    other = march_rays(origins, directions, torch.ones(3, 3, 3).bool(), AABB, 0.05, key=12)
    assert torch.equal(again.t_starts, one.t_starts[: len(again)])
    assert not torch.equal(one.t_starts[:10], other.t_starts[:10])
    hit = plain.packed[:, 1].gt(0) & one.packed[:, 1].gt(0)
    shift = one.t_starts[one.packed[hit, 0].long()] - plain.t_starts[plain.packed[hit, 0].long()]
    assert shift.ge(0).all() and shift.lt(0.05001).all() and shift.std() > 0.005


def test_rays_that_miss_and_grids_that_are_empty():
    origins, directions = some_rays(10)
    assert len(march_rays(origins, directions, torch.zeros(2, 2, 2).bool(), AABB, 0.1)) == 0
    away = march_rays(origins + 9.0, torch.ones(10, 3) / 3**0.5, torch.ones(2, 2, 2).bool(), AABB, 0.1)
    assert len(away) == 0 and away.packed.eq(0).all()
    none = march_rays(origins[:0], directions[:0], torch.ones(2, 2, 2).bool(), AABB, 0.1)
    assert len(none) == 0 and none.packed.shape == (0, 2)


def test_limit_keeps_the_first_samples_of_each_ray():
    origins, directions = some_rays(40)
    every = march_rays(origins, directions, some_grid(), AABB, 0.03)
    few = march_rays(origins, directions, some_grid(), AABB, 0.03, max_samples=4)
    assert torch.equal(few.packed[:, 1], every.packed[:, 1].clamp(max=4))
    for ray in range(40):
        assert torch.equal(of_ray(few, ray), of_ray(every, ray)[:4])


def test_select_packs_anew():
    origins, directions = some_rays(40)
    every = march_rays(origins, directions, some_grid(), AABB, 0.03)
    mask = torch.rand(len(every), generator=torch.Generator().manual_seed(2)) > 0.5
    kept = every.select(mask)
    for ray in range(40):
        first, count = every.packed[ray].tolist()
        run = slice(first, first + count)
        assert torch.equal(of_ray(kept, ray)[:, 0], every.t_starts[run][mask[run]])


def test_bytes_do_not_depend_on_the_number_of_threads_nor_on_the_batch(set_threads):
    origins, directions = some_rays(1500)
    set_threads(1)
    serial = march_rays(origins, directions, some_grid(), AABB, 0.05, key=3)
    set_threads(3)
    parallel = march_rays(origins, directions, some_grid(), AABB, 0.05, key=3)
    assert torch.equal(serial.packed, parallel.packed) and torch.equal(serial.t_starts, parallel.t_starts)
    plain = march_rays(origins, directions, some_grid(), AABB, 0.05)
    pairs = zip(origins.split(500), directions.split(500), strict=True)
    alone = torch.cat([march_rays(o, d, some_grid(), AABB, 0.05).t_starts for o, d in pairs])
    assert torch.equal(plain.t_starts, alone)


def test_step_that_is_not_positive_is_refused():
    with pytest.raises(ConfigError):
        march_rays(*some_rays(2), some_grid(), AABB, 0.0)

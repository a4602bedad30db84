import torch

from maquette.models.renderers.occupancy_grid import DECAY, OccupancyGrid

BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


def ball(points):
    return (points.norm(dim=-1) < 0.5).float()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def centers(n):
    axis = (torch.arange(n) + 0.5) / n * 2 - 1
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)


def test_finds_the_ball():
    grid = OccupancyGrid(BOX, 16)
    assert grid.binaries.all(), "before the first look, everything may be occupied"
    for step in range(0, 64, 16):
        grid.update(step, ball, seeded(step))
    distance, reach = centers(16).norm(dim=-1), 3**0.5 / 16
    assert grid.binaries[distance < 0.5 - reach].all()
    assert not grid.binaries[distance > 0.5 + reach].any()


def test_sampled_updates_after_the_warm_up_keep_the_ball_and_forget_what_left():
    grid = OccupancyGrid(BOX, 16)
    grid.update(0, ball, seeded())
    for step in range(256, 256 + 16 * 200, 16):
        grid.update(step, lambda x: 0.05 * (x.norm(dim=-1) < 0.2), seeded(step))
    distance, reach = centers(16).norm(dim=-1), 3**0.5 / 16
    assert grid.binaries[distance < 0.2 - reach].all()
    assert not grid.binaries[distance > 0.2 + reach].any()


def test_a_cell_fades_by_its_decay():
    grid = OccupancyGrid(BOX, 4)
    grid.update(0, lambda x: torch.ones(len(x)), seeded())
    grid.update(16, lambda x: torch.zeros(len(x)), seeded())
    torch.testing.assert_close(grid.occs, torch.full((64,), DECAY))


def test_the_threshold_is_the_mean_where_everything_is_faint():
    grid = OccupancyGrid(BOX, 4)
    grid.update(0, lambda x: 1e-3 * (x[:, 0] > 0), seeded())
    assert grid.threshold().item() < 1e-3
    assert grid.binaries[2:].all() and not grid.binaries[:2].any()


def test_updates_are_functions_of_their_generator_and_saved():
    one, other = OccupancyGrid(BOX, 8), OccupancyGrid(BOX, 8)
    one.update(0, ball, seeded(1))
    other.update(0, ball, seeded(1))
    assert torch.equal(one.occs, other.occs)
    loaded = OccupancyGrid(BOX, 8)
    loaded.load_state_dict(one.state_dict())
    assert torch.equal(loaded.binaries, one.binaries)


def test_update_steps():
    assert [step for step in range(40) if OccupancyGrid.is_due(step)] == [0, 16, 32]

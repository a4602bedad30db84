"""The judge of finished assets, where its answers are known."""

import pytest
import torch

from maquette.data.toyworld.mesh import colored_toy
from maquette.data.toyworld.palette import PALETTE
from maquette.evaluation.asset_score import azimuth_hits, gradient_energy, render_views, sector_cameras


@pytest.mark.parametrize(("shift", "hits"), [(0, 8), (1, 8), (-1, 8), (2, 0), (4, 0)])
def test_a_view_counts_within_one_sector_all_the_way_round(shift, hits):
    assert azimuth_hits(torch.eye(8).roll(shift, dims=1)) == hits


def test_gradient_energy_of_a_checkerboard_is_one_in_each_direction():
    row, column = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    board = ((row + column) % 2).float().expand(2, 3, 6, 6)
    assert gradient_energy(board) == pytest.approx(2.0)


def test_cameras_stand_in_the_middle_of_the_sectors():
    batch = sector_cameras(8)
    assert batch.azimuth.tolist() == [0, 45, 90, 135, 180, 225, 270, 315]
    assert batch.camera_positions[0, 0] > 2 and batch.camera_positions[2, 1] > 2


def test_views_show_the_toys_own_color():
    views = render_views(colored_toy("tree", "blue"), size=32)
    assert views.shape == (8, 3, 32, 32)
    covered = (views - torch.tensor(PALETTE["blue"])[:, None, None]).abs().amax(1) < 0.02
    assert (covered.float().mean((1, 2)) > 0.05).all()

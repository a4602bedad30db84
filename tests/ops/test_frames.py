import math

import pytest
import torch

from maquette.core.errors import UserError
from maquette.ops.frames import Frame, placed, rotation_about
from maquette.ops.transforms import transform_points


def moved(matrix, *point):
    return transform_points(torch.tensor([[point]], dtype=torch.float32), matrix[None])[0, 0].tolist()


def test_a_child_moves_with_its_parent():
    table = Frame("table", placed(translation=(1.0, 0.0, 0.5), angle_deg=90.0))
    cup = table.child("cup", placed(translation=(0.2, 0.0, 0.1), scale=0.5))
    assert moved(cup.to_world, 0.0, 0.0, 0.0) == pytest.approx([1.0, 0.2, 0.6])
    assert moved(cup.to_world, 1.0, 0.0, 0.0) == pytest.approx([1.0, 0.7, 0.6], abs=1e-6)
    assert moved(Frame("world").to_world, 1.0, 2.0, 3.0) == [1.0, 2.0, 3.0]


def test_from_any_frame_to_any_other_and_back():
    room = Frame("room", placed(angle_deg=30.0))
    one = room.child("one", placed((1.0, 2.0, 3.0), (1.0, 1.0, 0.0), 40.0, 2.0))
    two = room.child("two", placed((-1.0, 0.0, 0.0))).child(
        "deep", placed(axis=(0.0, 1.0, 0.0), angle_deg=5.0)
    )
    torch.testing.assert_close(two.to(one) @ one.to(two), torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(two.to_world @ one.to(two), one.to_world, atol=1e-5, rtol=0)
    torch.testing.assert_close(one.to(room), one.to_parent, atol=1e-5, rtol=0)


def test_rotation_is_counter_clockwise_seen_from_the_tip():
    turn = rotation_about(torch.tensor([0.0, 0.0, 3.0]), torch.tensor(math.pi / 2))
    torch.testing.assert_close(turn @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))
    many = rotation_about(
        torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), torch.linspace(-4, 4, 7)
    )
    torch.testing.assert_close(many @ many.mT, torch.eye(3).expand(7, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(many), torch.ones(7))


def test_what_has_no_meaning_is_refused():
    with pytest.raises(UserError, match="direction"):
        placed(axis=(0.0, 0.0, 0.0))
    flat = Frame("flat", placed(scale=0.0))
    with pytest.raises(UserError, match="'flat'"):
        Frame("world").to(flat)

"""Which weights a model takes."""

from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from maquette.core.errors import UserError
from maquette.training.weights import averaged_state, check_fits


class Cloud(nn.Module):
    free_rows: ClassVar[tuple[str, ...]] = ("points",)

    def __init__(self, rows: int, columns: int = 3) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.zeros(rows, columns))


class Surface(nn.Module):
    """Takes on the size of what it loads."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.register_buffer("vertices", torch.zeros(rows, 3))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        self.vertices = torch.zeros_like(state[f"{prefix}vertices"])
        super()._load_from_state_dict(state, prefix, *rest)


def state(**modules: nn.Module) -> dict[str, torch.Tensor]:
    return nn.ModuleDict(modules).state_dict()


def test_rows_that_training_changes_are_the_files_to_decide_and_columns_are_not() -> None:
    model = nn.ModuleDict({"geometry": Cloud(4), "background": nn.Linear(2, 2)})
    check_fits(model, state(geometry=Cloud(9), background=nn.Linear(2, 2)), "x.ckpt")
    with pytest.raises(UserError, match="do not fit") as caught:
        check_fits(model, state(geometry=Cloud(9, columns=4), background=nn.Linear(3, 2)), "x.ckpt")
    assert [line.partition(":")[0] for line in caught.value.details] == [
        "geometry.points",
        "background.weight",
    ]


def test_modules_with_a_way_of_their_own_to_load_are_trusted() -> None:
    model = nn.ModuleDict({"geometry": Surface(3), "background": nn.Linear(2, 2)})
    stored = state(geometry=Surface(8), background=nn.Linear(2, 2))
    check_fits(model, stored, "x.ckpt")
    model.load_state_dict(stored)
    assert model["geometry"].vertices.shape == (8, 3)


def test_average_takes_the_place_of_the_weights_it_covers() -> None:
    average = {"a": torch.ones(2)}
    content = {
        "state_dict": {"a": torch.zeros(2), "b": torch.zeros(1)},
        "callbacks": {"EMA": {"average": average}},
    }
    taken = averaged_state(content)
    assert torch.equal(taken["a"], torch.ones(2)) and set(taken) == {"a", "b"}
    assert averaged_state({"state_dict": {"a": torch.zeros(1)}})["a"].item() == 0.0

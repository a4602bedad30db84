from typing import Any

import pytest
import torch
from torch import nn

from maquette.core.errors import UserError
from maquette.training.optimization.optimizers import parse_optimizer


def stepped(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    optimizer = parse_optimizer(config, model)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer


CONFIG = {"name": "Adam", "args": {"lr": 0.1}}


def test_a_state_made_for_a_gpu_goes_on_where_there_is_none() -> None:
    model = nn.Linear(2, 1)
    state = stepped(model, CONFIG).state_dict()
    for group in state["param_groups"]:
        group |= {"capturable": True, "foreach": True}  # as a run with CUDA graphs writes it
    plain, repaired = (parse_optimizer(CONFIG, model) for _ in range(2))
    torch.optim.Optimizer.load_state_dict(repaired, state)
    assert [group["capturable"] for group in repaired.param_groups] == [False]
    assert [group["foreach"] for group in repaired.param_groups] == [plain.param_groups[0]["foreach"]]
    steps = [one["step"] for one in repaired.state.values()]
    assert all(one.device.type == "cpu" and one.item() == 1.0 for one in steps)
    repaired.step()  # torch's own loading ends here with an AssertionError


def test_rates_and_moments_come_from_the_state() -> None:
    model = nn.Linear(2, 1)
    first = stepped(model, CONFIG)
    first.param_groups[0]["lr"] = 0.025
    again = parse_optimizer(CONFIG, model)
    again.load_state_dict(first.state_dict())
    assert again.param_groups[0]["lr"] == 0.025
    torch.testing.assert_close(again.state[model.weight]["exp_avg"], first.state[model.weight]["exp_avg"])


def test_a_state_of_other_groups_is_refused_in_words() -> None:
    model = nn.Linear(2, 1)
    state = stepped(model, CONFIG).state_dict()
    other = parse_optimizer({**CONFIG, "params": {"weight": {}, "bias": {}}}, model)
    with pytest.raises(UserError, match=r"here: \[1, 1\]"):
        other.load_state_dict(state)

import math

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from maquette.core.errors import ConfigError, UnknownNameError
from maquette.training.optimizers import parse_optimizer, parse_scheduler


@pytest.fixture
def model() -> nn.Module:
    model = nn.Module()
    model.geometry = nn.Linear(2, 2)
    model.material = nn.Linear(2, 1)
    model.scale = nn.Parameter(torch.ones(1))
    return model


def test_all_trainable_parameters_without_groups(model: nn.Module) -> None:
    model.geometry.weight.requires_grad_(False)
    optimizer = parse_optimizer({"name": "SGD", "args": {"lr": 0.5}}, model)
    assert [len(group["params"]) for group in optimizer.param_groups] == [4]


def test_groups_by_dotted_path_hold_plain_values(model: nn.Module) -> None:
    config = OmegaConf.create(
        {
            "name": "Adam",
            "args": {"lr": 0.1, "betas": [0.9, 0.99]},
            "params": {"geometry.weight": {"lr": 0.01}, "material": {}, "scale": {"lr": 0.001}},
        }
    )
    groups = parse_optimizer(config, model).param_groups
    assert [(group["name"], group["lr"]) for group in groups] == [
        ("geometry.weight", 0.01), ("material", 0.1), ("scale", 0.001),
    ]  # fmt: skip
    assert groups[0]["params"][0] is model.geometry.weight and len(groups[1]["params"]) == 2
    assert all(type(group["betas"]) in (tuple, list) for group in groups)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"name": "Adam", "params": {"geometri": {}}}, "near: geometry"),
        ({"name": "Adam", "params": {"geometry.wieght": {}}}, "near: geometry.weight"),
        ({"name": "Adam", "args": {"learning_rate": 1}}, "learning_rate"),
        ({"name": "Adam", "args": {"lr": -1}}, "learning rate"),
    ],
)
def test_wrong_optimizer(model: nn.Module, config: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        parse_optimizer(config, model)


def test_unknown_names_suggest(model: nn.Module) -> None:
    with pytest.raises(UnknownNameError, match="AdamW"):
        parse_optimizer({"name": "AdmW"}, model)
    optimizer = parse_optimizer({"name": "SGD", "args": {"lr": 1.0}}, model)
    with pytest.raises(UnknownNameError, match="ExponentialLR"):
        parse_scheduler({"name": "ExponentalLR"}, optimizer)
    with pytest.raises(UnknownNameError, match=r"known: ASGD, .*SGD") as caught:
        parse_optimizer({"name": "whatever"}, model)
    assert "Optimizer" not in str(caught.value)
    with pytest.raises(ConfigError, match="SequentialLR accepts"):
        parts = [{"name": "ExponentialLR", "args": {"gamma": 0.1}}] * 2
        parse_scheduler({"name": "SequentialLR", "schedulers": parts, "milestones": []}, optimizer)
    with pytest.raises(ConfigError, match="epoch, step"):
        parse_scheduler({"name": "ExponentialLR", "interval": "steps", "args": {"gamma": 0.1}}, optimizer)


def rates(model: nn.Module, config: dict, steps: int) -> list[float]:
    optimizer = parse_optimizer({"name": "SGD", "args": {"lr": 1.0}}, model)
    scheduler = parse_scheduler(config, optimizer)["scheduler"]
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_sequential_scheduler(model: nn.Module) -> None:
    config = {
        "name": "SequentialLR",
        "interval": "step",
        "milestones": [2],
        "schedulers": [
            {"name": "ConstantLR", "args": {"factor": 0.5, "total_iters": 100}},
            {"name": "ExponentialLR", "args": {"gamma": 0.1}},
        ],
    }
    assert rates(model, config, 5) == pytest.approx([0.5, 0.5, 1.0, 0.1, 0.01])


def test_chained_scheduler(model: nn.Module) -> None:
    parts = [{"name": "ExponentialLR", "args": {"gamma": gamma}} for gamma in (0.5, 0.1)]
    seen = rates(model, {"name": "ChainedScheduler", "schedulers": parts}, 3)
    assert all(math.isclose(rate, 0.05**n) for n, rate in enumerate(seen))

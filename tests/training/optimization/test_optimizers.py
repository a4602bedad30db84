import math
import sys

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from maquette.core.errors import ConfigError, MissingBackendError, UnknownNameError
from maquette.training.optimization.optimizers import parse_optimizer, parse_scheduler


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
        ({"name": "Adam", "args": {"learning_rate": 1}}, r"did you mean system\.optimizer\.args\.lr\?"),
        ({"name": "Adam", "args": {"lr": -1}}, r"system\.optimizer\.args\.lr\.\n.*\n.*Invalid learning rate"),
        ({"name": "Adam", "params": {"scale": {"epsilon": 1}}}, r"params\.scale\.eps\?"),
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


def test_plateau_watches_a_logged_number(model: nn.Module) -> None:
    optimizer = parse_optimizer({"name": "SGD", "args": {"lr": 1.0}}, model)
    config = {"name": "ReduceLROnPlateau", "interval": "step", "frequency": 5, "args": {"factor": 0.5}}
    parsed = parse_scheduler({**config, "monitor": "train/loss"}, optimizer)
    assert (parsed["monitor"], parsed["frequency"], parsed["strict"]) == ("train/loss", 5, True)
    with pytest.raises(ConfigError, match="a logged number"):
        parse_scheduler(config, optimizer)
    with pytest.raises(ConfigError, match="stands alone"):
        parse_scheduler({"name": "ChainedScheduler", "schedulers": [config]}, optimizer)


def test_factor_of_the_rate_is_a_schedule(model: nn.Module) -> None:
    config = {"name": "LambdaLR", "interval": "step", "args": {"lr_lambda": [1, 1.0, 0.5, 3]}}
    assert rates(model, config, 5) == [1.0, 1.0, 0.75, 0.5, 0.5]


def test_sequences_and_chains_may_be_nested_in_a_sequence(model: nn.Module) -> None:
    parts = [{"name": "ExponentialLR", "args": {"gamma": gamma}} for gamma in (0.5, 0.1)]
    warm = {"name": "LinearLR", "args": {"start_factor": 0.5, "total_iters": 2}}
    later = {"name": "ChainedScheduler", "schedulers": [warm, parts[0]]}
    inner = {"name": "SequentialLR", "milestones": [2], "schedulers": parts}
    config = {"name": "SequentialLR", "milestones": [1, 4], "schedulers": [warm, inner, later]}
    seen = rates(model, config, 8)
    assert seen == pytest.approx([0.5, 1.0, 0.5, 1.0, 0.5, 0.375, 0.25, 0.125])
    optimizer = parse_optimizer({"name": "SGD", "args": {"lr": 1.0}}, model)
    first, second = (parse_scheduler(config, optimizer)["scheduler"] for _ in range(2))
    for _ in range(5):
        first.step()
    second.load_state_dict(first.state_dict())
    second.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(seen[6])


def test_schedulers_may_be_nested(model: nn.Module) -> None:
    warm = {"name": "LinearLR", "args": {"start_factor": 0.5, "total_iters": 2}}
    decays = [{"name": "ExponentialLR", "args": {"gamma": gamma}} for gamma in (0.5, 0.2)]
    config = {
        "name": "SequentialLR",
        "milestones": [2],
        "schedulers": [warm, {"name": "ChainedScheduler", "schedulers": decays}],
    }
    assert rates(model, config, 5) == pytest.approx([0.5, 0.75, 1.0, 0.1, 0.01])


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"name": "StepLR", "args": {"step_size": 0}}, "division|modulo"),
        ({"name": "StepLR"}, r"args\.step_size\.\n.*\n  expected: a whole number\n  Hint: give it"),
        ({"name": "StepLR", "args": {"step": 3}}, r"did you mean system\.scheduler\.args\.step_size"),
        ({"name": "OneCycleLR", "args": {"max_lr": 1}}, r"scheduler\.args\.\n.*\n.*total_steps"),
        ({"name": "StepLR", "intervall": "step"}, "did you mean system.scheduler.interval"),
        ({"name": "StepLR", "args": 3}, "a mapping"),
        ({"name": "StepLR", "frequency": 0}, "an integer >= 1"),
        ({"name": "ConstantLR", "gamma": 0.5}, "system.scheduler.gamma"),
        ({"name": "SequentialLR", "schedulers": [3]}, "a list of schedulers"),
        ({"name": "LambdaLR", "args": {"lr_lambda": "half"}}, "a number, or a list"),
    ],
)
def test_wrong_schedulers(model: nn.Module, config: dict, text: str) -> None:
    optimizer = parse_optimizer({"name": "SGD", "args": {"lr": 1.0}}, model)
    with pytest.raises(ConfigError, match=text):
        parse_scheduler(config, optimizer)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"name": "Adam", "warmup": 3}, "system.optimizer.warmup"),
        ({"name": "Adam", "parms": {"geometry": {}}}, "did you mean system.optimizer.params"),
        ({"name": "Adam", "params": {"geometry": {"lrr": 0.1}}}, r"params\.geometry\.lr\?"),
        ({"name": "Adam", "args": [0.1]}, "a mapping"),
        ({"name": "Adam", "args": {"lr": "fast"}}, r"args\.lr\.\n.*'fast'.*\n  expected: a number$"),
        ({"name": "Adam", "args": {"betas": [0.9, 0.99, 0.9]}}, "values that Adam can step with"),
        ({"name": "Adam", "params": {"scale": {"betas": 3}}}, "values that Adam can step with"),
    ],
)
def test_mistyped_optimizers_are_refused(model: nn.Module, config: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        parse_optimizer(config, model)


def test_keys_that_extensions_read_are_let_through(model: nn.Module) -> None:
    config = {"name": "Adam", "args": {"lr": 0.1}, "optimizer_dis": {"name": "Adam"}}
    assert type(parse_optimizer(config, model)) is torch.optim.Adam


def test_names_of_other_packages(model: nn.Module) -> None:
    fused = parse_optimizer({"name": "FusedAdam", "args": {"lr": 0.1}}, model)
    assert type(fused) is torch.optim.AdamW and fused.defaults["weight_decay"] == 0.0


def test_absent_package_is_named(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(MissingBackendError, match=r"maquette\[optim\]"):
        parse_optimizer({"name": "Adan"}, model)


def adan(weight: torch.Tensor, gradients: list[torch.Tensor], lr: float, decay: float) -> torch.Tensor:
    """Algorithm 1 of Xie et al. 2022, "Adan: Adaptive Nesterov Momentum Algorithm", with bias correction."""
    b1, b2, b3 = 0.02, 0.08, 0.01
    m = v = n = torch.zeros_like(weight)
    before = gradients[0]
    for k, g in enumerate(gradients, 1):
        m = (1 - b1) * m + b1 * g
        v = (1 - b2) * v + b2 * (g - before)
        n = (1 - b3) * n + b3 * (g + (1 - b2) * (g - before)) ** 2
        step = m / (1 - (1 - b1) ** k) + (1 - b2) * v / (1 - (1 - b2) ** k)
        weight = (weight - lr * step / ((n / (1 - (1 - b3) ** k)).sqrt() + 1e-8)) / (1 + lr * decay)
        before = g
    return weight


def test_adan_is_that_of_the_paper() -> None:
    pytest.importorskip("pytorch_optimizer")
    model = nn.Linear(3, 1, bias=False)
    config = {"name": "Adan", "args": {"lr": 0.1, "eps": 1e-8, "weight_decay": 0.2, "foreach": False}}
    optimizer, start = parse_optimizer(config, model), model.weight.detach().clone()
    gradients = [torch.tensor([[0.3, -1.0, 2.0]]) * factor for factor in (1.0, -0.5, 0.7, 0.1)]
    for gradient in gradients:
        model.weight.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(model.weight.detach(), adan(start, gradients, 0.1, 0.2), rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match="max_grad_norm"):
        parse_optimizer({"name": "Adan", "args": {"max_grad_nrm": 5.0}}, model)


@pytest.mark.parametrize(
    "name", ["ASGD", "Adadelta", "Adafactor", "LBFGS", "NAdam", "RMSprop", "Rprop", "SGD"]
)
def test_every_kind_of_torch_is_made(name: str) -> None:
    model = nn.Linear(2, 2)
    assert type(parse_optimizer({"name": name, "args": {"lr": 0.1}}, model)).__name__ == name
    assert all(one.grad is None for one in model.parameters())

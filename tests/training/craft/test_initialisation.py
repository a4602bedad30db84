from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from maquette.core.errors import ConfigError
from maquette.core.loading import load_checkpoint
from maquette.training.craft.initialisation import initialise
from maquette.training.craft.rules import SCHEMES, init_rules
from maquette.training.run import run


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 1))


def drawn(
    rules: list[dict[str, Any]], seed: int = 0, model: nn.Module | None = None
) -> dict[str, torch.Tensor]:
    model = model or small()
    initialise(model, init_rules(rules), seed)
    return {name: one.detach() for name, one in model.named_parameters()}


@pytest.mark.parametrize(
    ("scheme", "args", "std"),
    [
        ("kaiming_normal", {"nonlinearity": "relu"}, (2 / 64) ** 0.5),
        ("kaiming_uniform", {"nonlinearity": "linear"}, (1 / 64) ** 0.5),
        ("xavier_normal", {"gain": 2.0}, 2 * (2 / 96) ** 0.5),
        ("xavier_uniform", {}, (2 / 96) ** 0.5),
        ("normal", {"std": 0.3}, 0.3),
        ("trunc_normal", {"std": 0.3, "a": -3.0, "b": 3.0}, 0.3),
        ("uniform", {"a": -1.0, "b": 1.0}, 3**-0.5),
        ("orthogonal", {}, 64**-0.5),
    ],
)
def test_schemes_have_their_spread(scheme: str, args: dict[str, float], std: float) -> None:
    weight = drawn([{"pattern": "0.weight", "scheme": scheme, "args": args}])["0.weight"]
    assert weight.std().item() == pytest.approx(std, rel=0.06)
    if scheme == "orthogonal":
        torch.testing.assert_close(weight @ weight.T, torch.eye(32), rtol=0, atol=1e-5)


def test_later_rules_win_and_matrix_schemes_leave_vectors() -> None:
    before = small()
    bias = before[0].bias.detach().clone()
    rules = [
        {"pattern": "*", "scheme": "orthogonal"},
        {"pattern": "1", "scheme": "constant", "args": {"val": 7.0}},
    ]
    found = drawn(rules, model=before)
    assert torch.equal(found["0.bias"], bias)
    assert found["1.weight"].unique().tolist() == found["1.bias"].unique().tolist() == [7.0]


def test_a_draw_depends_on_seed_and_name_only() -> None:
    rule = [{"pattern": "*.weight", "scheme": "normal"}]
    first = drawn(rule)
    torch.rand(5)
    alone = drawn([{"pattern": "1.weight", "scheme": "normal"}])
    assert torch.equal(first["1.weight"], alone["1.weight"])
    assert not torch.equal(first["1.weight"], drawn(rule, seed=1)["1.weight"])
    assert not torch.equal(first["0.weight"][0, :32], first["1.weight"][0])


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"pattern": "*.bias", "scheme": "orthogonal"}, "weights of two dimensions, for orthogonal"),
        ({"pattern": "2", "scheme": "zeros"}, "near: 0"),
        ({"pattern": "0", "scheme": "normal", "args": {"sigma": 1}}, "sigma"),
        ({"pattern": "0", "scheme": "constant"}, "arguments that constant accepts"),
        ({"pattern": "0", "scheme": "kaiming"}, "one of: " + ", ".join(SCHEMES)),
        ({"pattern": "0"}, "no default"),
        ("zeros", "a mapping with a pattern"),
    ],
)
def test_rules_that_cannot_be(rule: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        drawn([rule])


def test_a_run_begins_as_told_and_a_resumed_one_goes_on(toy: Any, tmp_path: Path) -> None:
    settings = (
        "training.init=[{pattern: inner, scheme: zeros}]",
        "training.finish=[]",
        "training.freeze=[inner]",
    )
    run(toy(*settings, "trainer.max_steps=1"), "train")
    last = tmp_path / "run" / "ckpts" / "last.ckpt"
    assert load_checkpoint(last)["state_dict"]["inner.weight"].tolist() == [0.0, 0.0]
    moving = ("training.init=[{pattern: outer, scheme: zeros}]", "training.finish=[]")
    run(toy(*moving, f"run_dir={tmp_path / 'b'}", "trainer.max_steps=1"), "train")
    before = load_checkpoint(tmp_path / "b" / "ckpts" / "last.ckpt")["state_dict"]["outer.weight"]
    run(toy(*moving, f"run_dir={tmp_path / 'b'}", "trainer.max_steps=2"), "train",
        resume=tmp_path / "b" / "ckpts" / "last.ckpt")  # fmt: skip
    after = load_checkpoint(tmp_path / "b" / "ckpts" / "last.ckpt")["state_dict"]["outer.weight"]
    assert before.abs().min() > 0.09 and (after - before).abs().max() < 0.11


def test_weights_of_a_file_are_kept(toy: Any, tmp_path: Path) -> None:
    run(toy("training.finish=[]"), "train")
    last = tmp_path / "run" / "ckpts" / "last.ckpt"
    stored = load_checkpoint(last)["state_dict"]
    run(
        toy(
            "training.finish=[]", f"run_dir={tmp_path / 'b'}", "trainer.max_steps=1",
            f"system.weights={last}", "system.weights_ignore_modules=[outer]", "training.freeze=[inner]",
            'training.init=[{pattern: "*", scheme: zeros}]',
        ),
        "train",
    )  # fmt: skip
    begun = load_checkpoint(tmp_path / "b" / "ckpts" / "last.ckpt")["state_dict"]
    assert torch.equal(begun["inner.weight"], stored["inner.weight"])
    assert begun["outer.weight"].abs().max() <= 0.11  # zeros, and one step of 0.1

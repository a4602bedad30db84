from typing import Any

import pytest
import torch
from torch import nn

from maquette.core.errors import ConfigError
from maquette.training.craft.patterns import matching, module_at
from maquette.training.optimization.parameter_groups import parameter_groups


@pytest.fixture
def model() -> nn.Module:
    model = nn.Module()
    model.geometry = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    model.material = nn.Linear(3, 1)
    model.scale = nn.Parameter(torch.ones(1))
    model.guidance = type("Loose", (), {"net": nn.Linear(1, 1)})()
    return model


def names(model: nn.Module, groups: list[dict[str, Any]]) -> dict[Any, list[str]]:
    by_id = {id(one): name for name, one in model.named_parameters()}
    return {group.get("name"): [by_id[id(one)] for one in group["params"]] for group in groups}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("geometry", ["geometry.0.weight", "geometry.0.bias", "geometry.1.weight", "geometry.1.bias"]),
        ("geometry.1", ["geometry.1.weight", "geometry.1.bias"]),
        ("scale", ["scale"]),
        ("*.bias", ["geometry.0.bias", "geometry.1.bias", "material.bias"]),
        ("geo*.0", ["geometry.0.weight", "geometry.0.bias"]),
        (r"re:^(scale|material)", ["material.weight", "material.bias", "scale"]),
        (r"re:\d\.weight$", ["geometry.0.weight", "geometry.1.weight"]),
        ("guidance.net", ["guidance.net.weight", "guidance.net.bias"]),
    ],
)
def test_patterns(model: nn.Module, path: str, found: list[str]) -> None:
    assert sorted(matching(model, path, "key")) == sorted(found)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("geometri", "near: geometry"),
        ("*.wieght", "near: "),
        ("re:(", "regular expression"),
        ("", "a dotted path"),
        (3, "a dotted path"),
        ("training", "near: "),
    ],
)
def test_patterns_that_match_nothing(model: nn.Module, path: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        matching(model, path, "training.freeze[0]")
    assert caught.value.key == "training.freeze[0]"


def test_modules_by_path(model: nn.Module) -> None:
    assert module_at(model, "geometry.1", "key") is model.geometry[1]
    assert module_at(model, "guidance.net", "key") is model.guidance.net
    for wrong in ("scale", "", "geometry.7", None):
        with pytest.raises(ConfigError, match="a module; near: geometry"):
            module_at(model, wrong, "key")  # type: ignore[arg-type]


def test_plain_paths_go_before_patterns_and_these_in_their_order(model: nn.Module) -> None:
    groups = parameter_groups(model, {"*.bias": {"lr": 1.0}, "*": None, "geometry.0": {"lr": 2.0}})
    assert names(model, groups) == {
        "*.bias": ["geometry.1.bias", "material.bias"],
        "*": ["scale", "geometry.1.weight", "material.weight"],
        "geometry.0": ["geometry.0.weight", "geometry.0.bias"],
    }  # fmt: skip
    assert [group.get("lr") for group in groups] == [1.0, None, 2.0]


def test_biases_and_vectors_need_not_decay(model: nn.Module) -> None:
    params = {"geometry": {"weight_decay": 0.1}, "scale": {}, "material.weight": {}}
    groups = parameter_groups(model, params, weight_decay_on="matrices")
    assert {name: len(found) for name, found in names(model, groups).items()} == {
        "geometry": 1, "geometry/no_decay": 3, "scale": 1, "material.weight": 1,
    }  # fmt: skip
    assert [group.get("weight_decay") for group in groups] == [0.1, 0.0, 0.0, None]
    whole = parameter_groups(model, weight_decay_on="matrices")
    assert [(group["name"], len(group["params"])) for group in whole] == [("all", 2), ("all/no_decay", 5)]


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"geometry": {}, "geometry.0": {}}, "geometry has geometry.0.weight already"),
        ({"*": {}, "*.bias": {}}, "has geometry.0.bias already"),
        ({"scale": 3}, "a mapping of options"),
        ({"scale": {"lr": "fast"}}, "a number >= 0"),
        ({"scale": {"lr": True}}, "a number >= 0"),
        ({"scale": {"weight_decay": float("nan")}}, "a number >= 0"),
        ([1], "a mapping of dotted paths"),
    ],
)
def test_groups_that_cannot_be(model: nn.Module, params: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        parameter_groups(model, params)


def test_what_decays_is_all_or_matrices(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match="one of: all, matrices"):
        parameter_groups(model, None, "vectors")

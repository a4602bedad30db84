"""Whatever is wrong in a recipe ends in one screen that names the key (`benchmarks/config_mutations.py`)."""

import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from config_mutations import Mutation, cases, outcome
from hypothesis import HealthCheck, given, settings

from maquette.core.errors import UserError
from maquette.core.registry import registry
from maquette.core.structured import parse_structured

CALM = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck), print_blob=False
)


@given(cases(("first-light", "caption-model")))
@settings(CALM, max_examples=30)
def test_spoiled_recipes_build_or_are_refused_in_one_screen(case: tuple[str, list[Mutation]]) -> None:
    name, changes = case
    with tempfile.TemporaryDirectory() as folder:
        assert outcome(name, changes, Path(folder) / "run", steps=0).fault == ""


@pytest.mark.parametrize(
    ("path", "value", "accepted"),
    [("seed", 3, True), ("system.geometry.radius", 2, True), ("system.geometry.radius", "x", False)],
)
def test_what_is_right_is_accepted_and_what_is_wrong_is_not(
    path: str, value: object, accepted: bool, tmp_path: Path
) -> None:
    found = outcome("first-light", [Mutation(path, value)], tmp_path / "run", steps=0)
    assert found.fault == "" and found.accepted is accepted


@pytest.mark.parametrize(
    ("recipe", "change"),
    [
        ("first-light", Mutation("system.guidance_type", kind="remove")),
        ("first-light", Mutation("system.geometry.mlp_network_config", ["a"])),
        ("first-light", Mutation("system.weights", "")),
        ("sdf", Mutation("system.geometry.sdf_bias_params", kind="remove")),
        ("gaussians", Mutation("data", "${nowhere}")),
        ("first-light", Mutation("extensions", "${nowhere}")),
        ("first-light", Mutation("extensions", [1])),
        ("first-light", Mutation("trainer.limit_train_batches", 1e-30)),
        ("first-light", Mutation("format", "${nowhere}")),
        ("prolificdreamer", Mutation("data.resolution_milestones", {})),
        ("sdf", Mutation("system.geometry.pos_encoding_config", {"a": 1})),
        ("volume-to-tetrahedra", Mutation("system.guidance_type", "stable-diffusion-unified-guidance")),
    ],
    ids=lambda one: getattr(one, "path", one),
)
def test_what_is_missing_or_of_another_kind_is_told_with_its_key(
    recipe: str, change: Mutation, tmp_path: Path
) -> None:
    found = outcome(recipe, [change], tmp_path / "run", steps=1)
    assert not found.accepted and found.fault == ""


def options_of_any_type() -> list[tuple[str, type, str]]:
    """(module, its Config, field) of everything whose type nobody else checks."""
    found = []
    for name in registry.names():
        config = getattr(registry.find(name), "Config", None)
        if config is not None:
            found += [(name, config, one.name) for one in fields(config) if one.type is Any]
    return found


STRANGE = ("x", [], ["a"], [[1, 2], [3, 4]], {}, {"a": 1})
"""What no option of any type can use."""

READ_WITH: dict[str, dict[str, Any]] = {
    "attention_slice_size": {"enable_attention_slicing": True},
    "sdf_bias_params": {"sdf_bias": "ellipsoid"},
    "shape_init_params": {"shape_init": "mesh:absent.obj"},
}
"""Options that are read only where another one asks for it."""

READ_LATER = {
    "color_clip", "densify_grad_threshold", "directions", "min_opac_prune", "radii2d_thresh", "scale_lr",
    "split_thresh",
}  # fmt: skip
"""Options that are not read by a config alone: when the module is built, or never."""


def refused(config: type, option: str, value: Any) -> bool:
    try:
        parse_structured(config, {**READ_WITH.get(option, {}), option: value}, "part")
    except UserError as err:
        assert option in str(err), (config, option, value)
        return True
    return False


def test_options_of_any_type_refuse_what_they_cannot_use_with_their_key() -> None:
    options = options_of_any_type()
    for module, config, option in options:
        found = [refused(config, option, value) for value in STRANGE]
        assert all(found) or option in READ_LATER, (module, option, found)
        for value in (-1, True):  # which may be meant
            refused(config, option, value)
    names = {option for _, _, option in options}
    assert len(names - READ_LATER) >= 20 and names >= READ_LATER | set(READ_WITH)


@given(cases(("first-light", "caption-model")))
@settings(CALM, max_examples=4)
def test_some_of_them_take_two_steps(case: tuple[str, list[Mutation]]) -> None:
    name, changes = case
    with tempfile.TemporaryDirectory() as folder:
        assert outcome(name, changes, Path(folder) / "run", steps=2).fault == ""

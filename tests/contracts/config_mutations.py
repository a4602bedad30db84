"""Recipes with something wrong in them: where, what, and what a user then sees.

Used by the tests and by `benchmarks/config_mutations.py`.
"""

import copy
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from lightning.pytorch import Trainer

from maquette.core.config import ExperimentConfig, load_config
from maquette.core.errors import MaquetteError, UserError
from maquette.core.recipes import recipe_path
from maquette.core.registry import registry
from maquette.training.config import TrainingConfig
from maquette.training.run import run

RECIPES = (
    "first-light", "sdf", "gaussians", "prolificdreamer", "dreamfusion-sd", "volume-to-tetrahedra",
    "caption-model",
)  # fmt: skip
"""What is spoiled; recipes that draw their pictures first would take too long."""

PROMPT = "system.prompt_processor.prompt"

VALUES = (
    None, True, False, -1, 0, 1, 2, 3, 7, 0.5, -0.5, 1e-30, math.nan, math.inf, "", "x", "1", "a b", "none",
    "${nowhere}", "${system", "???", [], [1], [0, 1, 2], [0, 0.5, 1.0, 100], ["a"], [None], [[1, 2], [3, 4]],
    {}, {"a": 1}, {"name": "x"},
)  # fmt: skip
"""What is put where something else belongs: other types, limits and beyond, broken references."""

FREE = ("system.loss.", ".args.", ".extras", ".loggers", "default_root_dir")
"""Where a recipe may say what it likes, or is only warned."""

LINES = 40
"""What fits on one screen."""

OURS = {
    "training.finish": [], "training.loggers": [], "training.snapshot_code": False,
    "trainer.num_sanity_val_steps": 0, "trainer.limit_val_batches": 0,
}  # fmt: skip
"""Laid over every recipe where it is not what is spoiled: nothing but building and stepping."""


@dataclass(frozen=True)
class Mutation:
    """One change of a recipe."""

    path: str
    """Dotted key."""
    value: Any = None
    """What stands there now."""
    kind: str = "replace"
    """replace, remove, or misspell."""

    def apply(self, recipe: dict[str, Any]) -> None:
        """Make the change in place, as far as the key is still there."""
        *above, last = self.path.split(".")
        node: Any = recipe
        for key in above:
            node = node.setdefault(key, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            return
        if self.kind == "remove":
            node.pop(last, None)
        elif self.kind == "misspell":
            node[last[:-1] + "_"] = node.pop(last, 1)
        else:
            node[last] = copy.deepcopy(self.value)

    @property
    def words(self) -> set[str]:
        """Any of which names the key to a reader."""
        last = self.path.rpartition(".")[2]
        if self.kind == "misspell":
            return {last[:-1] + "_", last}
        return {last, last.removesuffix("_type") + "."} if last.endswith("_type") else {last}


@dataclass(frozen=True)
class Outcome:
    """What came of a recipe."""

    accepted: bool
    fault: str = ""
    """Why a user could not be content; empty where they could."""


def plain_recipe(name: str) -> dict[str, Any]:
    """The recipe as it is written."""
    from omegaconf import OmegaConf

    recipe: Any = OmegaConf.to_container(OmegaConf.load(recipe_path(name)), resolve=False)
    if "prompt_processor" in recipe["system"]:
        recipe["system"]["prompt_processor"]["prompt"] = "a red mushroom"
    return recipe


def keys_of(name: str) -> list[str]:
    """Every key of a recipe, and every option of its modules that it leaves alone."""
    recipe = plain_recipe(name)
    found = set(_paths(recipe)) | {one.name for one in fields(ExperimentConfig)}
    found |= set(_options(TrainingConfig, "training."))
    found |= {f"trainer.{one}" for one in inspect.signature(Trainer).parameters}
    owners = [("data", recipe), ("system", recipe), *((key, recipe["system"]) for key in recipe["system"])]
    for key, owner in owners:
        module = owner.get(f"{key}_type")
        if module:
            prefix = key if key in ("data", "system") else f"system.{key}"
            found |= {f"{prefix}.{one.name}" for one in fields(registry.find(module).Config)}
    return sorted(found - {"run_dir", "exp_root_dir", "stages", "description"})


def _options(config: type, prefix: str) -> list[str]:
    found = []
    for one in fields(config):
        found.append(prefix + one.name)
        if is_dataclass(one.type) and isinstance(one.type, type):
            found += _options(one.type, f"{prefix}{one.name}.")
    return found


def _paths(node: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in node.items():
        if "." in key:  # a path of its own, not of this recipe
            continue
        found.append(f"{prefix}{key}")
        if isinstance(value, dict):
            found += _paths(value, f"{prefix}{key}.")
    return found


def mutations(name: str) -> st.SearchStrategy[list[Mutation]]:
    """One to three changes of a recipe."""
    keys = keys_of(name)
    modules = [key for key in keys if key.endswith("_type")]
    anywhere = st.sampled_from(keys)
    replaced = st.builds(Mutation, anywhere, st.sampled_from(VALUES))
    swapped = st.builds(Mutation, st.sampled_from(modules), st.sampled_from(registry.names()))
    removed = st.builds(Mutation, anywhere, kind=st.just("remove"))
    misspelt = st.builds(Mutation, anywhere, kind=st.just("misspell"))
    one = st.one_of(replaced, replaced, replaced, swapped, removed, misspelt)
    return st.lists(one, min_size=1, max_size=3)


def cases(names: tuple[str, ...] = RECIPES) -> st.SearchStrategy[tuple[str, list[Mutation]]]:
    """A recipe and its changes."""
    return st.sampled_from(names).flatmap(lambda name: st.tuples(st.just(name), mutations(name)))


def outcome(name: str, changes: list[Mutation], folder: Path, steps: int) -> Outcome:
    """Parse and build a spoiled recipe, and take some steps; 0 for none."""
    recipe = plain_recipe(name)
    for change in changes:
        change.apply(recipe)
    touched = {change.path for change in changes}
    ours = {key: value for key, value in OURS.items() if not any(key.startswith(path) for path in touched)}
    try:
        cfg = load_config(recipe, ["preset=smoke"], {"run_dir": str(folder), **ours})
        cfg.trainer["max_steps"] = max(steps, 1) if cfg.stages else steps  # a stage begins with a trained one
        run(cfg, mode="train")
    except MaquetteError as err:
        return Outcome(False, _fault(err, changes))
    except Exception as err:  # noqa: BLE001 (this is what is looked for)
        return Outcome(False, f"a traceback reaches the user: {type(err).__name__}: {err}")
    return Outcome(True, _swallowed(changes))


def _swallowed(changes: list[Mutation]) -> str:
    """A key that nothing reads must not be accepted."""
    if len(changes) > 1 or changes[0].kind != "misspell" or any(part in changes[0].path for part in FREE):
        return ""
    return f"a misspelt key was accepted: {changes[0].path}"


def _fault(err: MaquetteError, changes: list[Mutation]) -> str:
    text = str(err)
    if "unexpectedly" in text:
        return f"not foreseen: {text}"
    if len(text.splitlines()) > LINES:
        return f"more than one screen: {text}"
    names_key = any(word in text for change in changes for word in change.words)
    if isinstance(err, UserError) and not names_key:
        return f"no key is named: {text}"
    return ""

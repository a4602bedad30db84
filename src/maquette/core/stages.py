"""Stages of one run, coarse to fine: each is the recipe with its own changes laid over it.

In a recipe, `stages` is a list of mappings `{name: ..., changes}`, where the changes have the sections of a
recipe. They are merged into the recipe key by key, except that a stage which names another module
(`geometry_type`, say) replaces the block of its options (`geometry`) by the one it gives. Words of a command
line change every stage, unless they begin with `stages.N.` or `stages.NAME.`.
"""

import copy
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf

from maquette.core.errors import ConfigError, MaquetteError, UnknownKeyError
from maquette.core.overrides import split_override

SECTIONS = (
    "data_type", "data", "system_type", "system", "trainer", "training", "checkpoint", "seed"
)  # fmt: skip
"""What a stage may change."""

_NAME = re.compile(r"[A-Za-z][\w-]*")
_STAGE_WORD = re.compile(r"stages(?:\.([^.\[\]]+)|\[(\d+)\])\.(.+)", re.DOTALL)


def take_stages(recipe: DictConfig) -> list[dict[str, Any]]:
    """The checked entries of `stages`, unresolved, and out of `recipe`.

    Raises:
        ConfigError: it is no list of mappings, or a name is missing, unfit for a folder, or there twice.
        UnknownKeyError: a stage holds something that a stage cannot change.
    """
    content: Any = OmegaConf.to_container(recipe, resolve=False)
    entries = content.get("stages") or []
    if "stages" in recipe:
        del recipe["stages"]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(
            "stages", entries, "a list of mappings, each with a name and what the stage changes"
        )
    for index, entry in enumerate(entries):
        _check_entry(entry, f"stages.{index}", [other.get("name") for other in entries[:index]])
    return entries


def words_for(words: Sequence[str], index: int | None, names: Sequence[str]) -> list[str]:
    """The words of a command line that change stage `index` (None: the recipe that all stages share).

    Raises:
        ConfigError: a word is about a stage that is not there.
    """
    chosen = []
    for word in words:
        key, _ = split_override(word)
        match = _STAGE_WORD.fullmatch(key)
        if match is None:
            chosen.append(word)
        elif _index(match[1] or match[2], names) == index:
            chosen.append(match[3] + word[word.index("=") :])
    return chosen


def merged(recipe: Mapping[str, Any], stage: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with the changes of a stage, as plain containers; both stay as they are."""
    result = copy.deepcopy(dict(recipe))
    changes = copy.deepcopy({key: value for key, value in stage.items() if key in SECTIONS})
    _forget_blocks(result, changes, ["data"])
    system = result.get("system")
    if isinstance(system, dict) and isinstance(changes.get("system"), dict):
        _forget_blocks(system, changes["system"], _parts(changes["system"]))
    return {**result, **{key: _laid_over(result.get(key), value) for key, value in changes.items()}}


def difference(recipe: Mapping[str, Any], stage: Mapping[str, Any]) -> dict[str, Any]:
    """The changes that `merged` turns `recipe` into `stage` with, as few as possible."""
    changes = _difference(recipe, stage, ["data"], SECTIONS)
    before, after = recipe.get("system") or {}, stage.get("system") or {}
    system = _difference(before, after, _parts(after), list(after))
    return {key: value for key, value in changes.items() if key != "system"} | (
        {"system": system} if system else {}
    )


@contextmanager
def in_stage(index: int, name: str) -> Iterator[None]:
    """Name the stage in what is raised inside the block."""
    try:
        yield
    except MaquetteError as err:
        err.details.append(f"in stage {index} ({name})")
        raise


def _check_entry(entry: Mapping[Any, Any], key: str, before: Sequence[Any]) -> None:
    name = entry.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{key}.name", name, "a name of letters, digits, _ and -, beginning with a letter")
    if name in before:
        raise ConfigError(f"{key}.name", name, "a name that no other stage has")
    known = ["name", *SECTIONS]
    for one in entry:
        if one not in known:
            near = difflib.get_close_matches(str(one), known, n=3)
            raise UnknownKeyError(f"{key}.{one}", near, known)


def _index(which: str, names: Sequence[str]) -> int:
    if which in names:
        return names.index(which)
    if which.isdecimal() and int(which) < len(names):
        return int(which)
    there = ", ".join(f"{index} ({name})" for index, name in enumerate(names))
    raise ConfigError(
        f"stages.{which}", which, f"a stage: {there}" if there else "nothing: there are no stages"
    )


def _parts(system: Mapping[str, Any]) -> list[str]:
    return [key.removesuffix("_type") for key in system if key.endswith("_type")]


def _forget_blocks(base: dict[str, Any], changes: Mapping[str, Any], parts: Sequence[str]) -> None:
    """Empty the options, in `base`, of the modules that `changes` exchanges."""
    for part in parts:
        if f"{part}_type" in changes and changes[f"{part}_type"] != base.get(f"{part}_type"):
            base[part] = {}


def _laid_over(base: Any, changes: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return {**base, **{key: _laid_over(base.get(key), value) for key, value in changes.items()}}


def _difference(
    base: Mapping[str, Any], other: Mapping[str, Any], parts: Sequence[str], keys: Sequence[str]
) -> dict[str, Any]:
    exchanged = {part for part in parts if base.get(f"{part}_type") != other.get(f"{part}_type")}
    changes = {}
    for key in keys:
        value, before = other.get(key), base.get(key)
        if key in exchanged:
            changes[key] = value
        elif isinstance(value, Mapping) and isinstance(before, Mapping):
            inner = _difference(before, value, [], list(value))
            changes |= {key: inner} if inner else {}
        elif value != before:
            changes[key] = value
    return changes

"""Presets: settings laid over any recipe, as far as its modules know them.

A preset is a YAML file in `configs/presets/` with the sections of a recipe. A key of a module's section is
used when the module's `Config` has that field; a key of an open section (`trainer`, `checkpoint`, `training`)
when the recipe has it, or when the preset lists it under `always`. A key that refers to another preset key
keeps its reference: a guidance that takes its model from the prompt processor goes on to do so.
"""

import dataclasses
import difflib
import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from maquette.core.errors import UnknownNameError, asked_for_by
from maquette.core.paths import configs_dir
from maquette.core.registry import registry

OPEN_SECTIONS = ("trainer", "checkpoint", "training")
REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def preset_names() -> list[str]:
    """Names of the shipped presets."""
    return sorted(path.stem for path in configs_dir("presets").glob("*.yaml"))


def apply_preset(recipe: DictConfig, final: DictConfig, name: str) -> None:
    """Lay a preset over `recipe`, in place; `final` is the recipe with the overrides, which says what the
    modules are.

    Raises:
        UnknownNameError: there is no such preset, or a module's name is unknown.
    """
    if name not in preset_names():
        known = preset_names()
        raise UnknownNameError("preset", name, difflib.get_close_matches(name, known, n=3), known)
    preset = OmegaConf.to_container(OmegaConf.load(configs_dir("presets", f"{name}.yaml")))
    assert isinstance(preset, dict)
    chosen = _chosen(preset, OmegaConf.to_container(final, resolve=False))
    recipe.merge_with(chosen)


def _chosen(preset: Mapping[Any, Any], final: Any) -> dict[str, Any]:
    """The part of a preset that this recipe can take."""
    chosen: dict[str, Any] = dict(preset.get("always", {}))
    for section in OPEN_SECTIONS:
        known = final.get(section) or {}
        found = {key: value for key, value in preset.get(section, {}).items() if key in known}
        chosen[section] = {**chosen.get(section, {}), **found}
    chosen["data"] = _module_part(preset.get("data", {}), final, "data", "data")
    chosen["system"] = _system_part(preset.get("system", {}), final)
    chosen = {section: content for section, content in chosen.items() if content}
    return _without_followers(chosen, final, chosen)


def _without_followers(part: Mapping[str, Any], given: Any, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """A part of what is chosen, without the keys that in the recipe refer to another chosen key."""
    kept: dict[str, Any] = {}
    for key, value in part.items():
        old = given.get(key) if isinstance(given, Mapping) else None
        target = REFERENCE.fullmatch(old) if isinstance(old, str) else None
        if target is None or not _holds(chosen, target[1]):
            kept[key] = _without_followers(value, old, chosen) if isinstance(value, dict) else value
    return kept


def _holds(content: Any, path: str) -> bool:
    key, _, rest = path.partition(".")
    found = isinstance(content, Mapping) and key in content
    return found and (not rest or _holds(content[key], rest))


def _system_part(preset: Mapping[str, Any], final: Mapping[str, Any]) -> dict[str, Any]:
    system = final.get("system") or {}
    parts = {key: value for key, value in preset.items() if isinstance(value, dict)}
    chosen = _module_part({k: v for k, v in preset.items() if k not in parts}, final, "system", "system")
    for part, values in parts.items():
        found = _module_part(values, system, part, part.replace("_", "-"))
        if found:
            chosen[part] = found
    return chosen


def _module_part(values: Mapping[str, Any], owner: Mapping[str, Any], part: str, kind: str) -> dict[str, Any]:
    """The values that the module named by `owner[part + "_type"]` has fields for."""
    name = owner.get(f"{part}_type")
    if not isinstance(name, str) or not values:
        return {}
    given = owner.get(part) or {}
    chosen = {}
    with asked_for_by(f"{part}_type"):
        config_class = _config_class(name, kind)
    for one in dataclasses.fields(config_class):
        if one.name in values:
            value = values[one.name]
            if _clash(value, given.get(one.name)):
                continue  # not what the field holds: it is refused, with its key, when it is read
            chosen[one.name] = _merged(value, given.get(one.name), one) if isinstance(value, dict) else value
    return chosen


def _clash(value: Any, given: Any) -> bool:
    """Whether they cannot be merged: a mapping with anything else, or a list with a mapping."""
    if isinstance(value, dict):
        return given is not None and not isinstance(given, Mapping)
    return isinstance(value, list) and isinstance(given, Mapping)


def _config_class(name: str, kind: str) -> Any:
    config_class = getattr(registry.find(name, kind), "Config", None)
    return config_class or dataclasses.make_dataclass("Config", [])


def _merged(values: Mapping[str, Any], given: Any, one: "dataclasses.Field[Any]") -> dict[str, Any]:
    """A mapping field: what the recipe gives, or the default, with those keys changed that it has."""
    if isinstance(given, Mapping):
        base = dict(given)
    elif one.default_factory is not dataclasses.MISSING:
        base = dict(one.default_factory() or {})
    else:
        base = {}
    return {**base, **{key: value for key, value in values.items() if key in base}}

"""Checking a mapping against a `Config` dataclass, with messages that name the key."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from maquette.core.errors import ConfigError, UnknownKeyError

STRUCTURED_FLAGS = {"allow_objects": True}
RAISED = "raised while resolving interpolation: "
"""What OmegaConf writes before the reason of a function that failed."""


def parse_structured(config_class: type[Any], cfg: Any = None, key: str = "") -> Any:
    """`config_class(**cfg)`, checked, as an OmegaConf structured config.

    Args:
        config_class: a dataclass; its `__post_init__` runs once, on values of the right types.
        cfg: a mapping, a DictConfig, an instance of the class, or None for all defaults.
        key: full path of the mapping in the recipe, for the messages.

    Raises:
        UnknownKeyError: a key that the class does not have.
        ConfigError: a value of another type than the field's, or a field without a value.
    """
    if dataclasses.is_dataclass(cfg) and not isinstance(cfg, type):
        return _as_node(dataclasses.replace(cfg))
    values = plain_mapping(cfg, key)
    check_keys(config_class, values, key)
    node = OmegaConf.structured(config_class, flags=STRUCTURED_FLAGS)
    hints = typing.get_type_hints(config_class)
    for name, value in values.items():
        _assign(node, name, escaped(value), hints[name], dotted(key, name))
    try:
        check_no_missing(node, key)
        return _as_node(OmegaConf.to_object(node))
    except OmegaConfBaseException as err:
        raise ConfigError(dotted(key, str(err.full_key or "")), _first_line(err), "another value") from err


def escaped(value: Any) -> Any:
    """The same content for OmegaConf, with text that looks like an interpolation (`${x}`) kept as text."""
    if isinstance(value, str):
        return value.replace("${", r"\${")
    if isinstance(value, Mapping) and not isinstance(value, DictConfig):
        return {key: escaped(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(escaped(one) for one in value)
    return value


def _as_node(instance: Any) -> Any:
    """A structured config of a dataclass instance that is the caller's to change."""
    for one in dataclasses.fields(instance):
        setattr(instance, one.name, escaped(getattr(instance, one.name)))
    return OmegaConf.structured(instance, flags=STRUCTURED_FLAGS)


def plain_mapping(cfg: Any, key: str = "") -> dict[str, Any]:
    """Plain, resolved dictionaries and lists of a mapping or DictConfig.

    Raises:
        ConfigError: it is no mapping, or a value in it is missing or cannot be resolved.
    """
    if cfg is None:
        return {}
    if isinstance(cfg, DictConfig):
        return resolved(cfg, key)
    if not isinstance(cfg, Mapping):
        raise ConfigError(key or "configuration", cfg, "a mapping of keys to values")
    return dict(cfg)


def resolved(cfg: DictConfig, key: str = "") -> dict[str, Any]:
    """The content of a DictConfig with everything in `${...}` put in.

    Raises:
        ConfigError: a value is missing (`???`) or an interpolation fails.
    """
    check_no_missing(cfg, key)
    try:
        content = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as err:
        raise _unresolved(key, err) from err
    assert isinstance(content, dict)
    return typing.cast("dict[str, Any]", content)


def _unresolved(key: str, err: OmegaConfBaseException) -> ConfigError:
    """The error of an interpolation that fails; one that was computed is shown as it is written."""
    where = dotted(key, str(err.full_key)) if err.full_key else key
    said = _first_line(err)
    if RAISED not in said or err.child_node is None:
        return ConfigError(where, said, "an interpolation that resolves")
    reason = said.partition(RAISED)[2]
    return ConfigError(where, err.child_node._value(), f"an interpolation that resolves ({reason})")


def check_blocks(content: Any, mappings: Sequence[str], lists: Sequence[str]) -> None:
    """Test, before anything is laid over a recipe, that what holds keys is a mapping, and what lists a list.

    Args:
        content: the recipe, not resolved.
        mappings: keys that hold keys; so do the parts of the system whose type is named.
        lists: keys that hold lists.

    Raises:
        ConfigError: one holds something else.
    """
    system = content.get("system")
    parts = system if isinstance(system, dict) else {}
    blocks = {key: content.get(key) for key in mappings}
    blocks |= {f"system.{part}": parts[part] for part in parts if f"{part}_type" in parts}
    for key, value in blocks.items():
        if value is not None and not isinstance(value, dict) and not _refers(value):
            raise ConfigError(key, value, "a mapping of keys to values")
    for key in lists:
        value = content.get(key)
        if value is not None and not isinstance(value, list) and not _refers(value):
            raise ConfigError(key, value, "a list")


def _refers(value: Any) -> bool:
    """Whether a value stands for another one."""
    return isinstance(value, str) and "${" in value


def check_no_missing(cfg: DictConfig, key: str = "") -> None:
    """Raise a ConfigError that names every key that still is `???`."""
    missing = _missing(OmegaConf.to_container(cfg, resolve=False))
    if not missing:
        return
    names = [dotted(key, name) for name in missing]
    example = " ".join(f"{name}=..." for name in names)
    raise ConfigError(", ".join(names), "???", "a value: this key has no default", f"give it: {example}")


def check_keys(config_class: type[Any], values: Mapping[str, Any], key: str = "") -> None:
    """Raise an UnknownKeyError, with suggestions, for the first key that the dataclass does not have."""
    known = [one.name for one in dataclasses.fields(config_class) if one.init]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=3)
            raise UnknownKeyError(dotted(key, str(name)), near, known)


def dotted(prefix: str, name: str) -> str:
    """`prefix.name`, or `name` where there is no prefix."""
    return f"{prefix}.{name}" if prefix else name


def _missing(content: Any, path: str = "") -> list[str]:
    """Dotted keys whose value is `???`; interpolations are not followed."""
    if content == "???":
        return [path]
    if isinstance(content, dict):
        return [key for name, one in content.items() for key in _missing(one, dotted(path, str(name)))]
    if isinstance(content, list):
        return [key for i, one in enumerate(content) for key in _missing(one, f"{path}[{i}]")]
    return []


def _assign(node: DictConfig, name: str, value: Any, hint: Any, key: str) -> None:
    if isinstance(value, list | tuple | ListConfig) and not _takes_list(hint):
        raise ConfigError(key, value, f"{type_name(hint)}; a list is not accepted here")
    try:
        OmegaConf.update(node, name, _converted(value, hint, key), merge=False)
    except OmegaConfBaseException as err:
        raise ConfigError(key, value, type_name(hint)) from err


def _converted(value: Any, hint: Any, key: str) -> Any:
    options = _options(hint)
    if isinstance(value, Mapping):
        for nested in options:
            if isinstance(nested, type) and dataclasses.is_dataclass(nested):
                return parse_structured(nested, value, key)
    # OmegaConf refuses a whole number where "float or str" is asked for.
    if type(value) is int and float in options and int not in options:
        return float(value)
    return value


def _takes_list(hint: Any) -> bool:
    return any(one is Any or (typing.get_origin(one) or one) in (list, tuple) for one in _options(hint))


def _options(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation itself."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "a mapping",
    list: "a list",
    tuple: "a list",
    type(None): "null",
}


def type_name(hint: Any) -> str:
    """What a field with this annotation accepts, in words: "a whole number or null" for `int | None`."""
    options = _options(hint)
    if len(options) > 1:
        return " or ".join(type_name(one) for one in options)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return f"one of {', '.join(str(one) for one in args)}"
    if origin in (list, tuple) and args:
        count = "" if origin is list or args[-1] is Ellipsis else f"{len(args)} values, "
        return f"a list ({count}each {type_name(args[0])})"
    if origin is dict and args[1] is not Any:
        return f"a mapping (each value {type_name(args[1])})"
    return _WORDS.get(origin or hint, getattr(hint, "__name__", str(hint)))


def _first_line(err: Exception) -> str:
    return str(err).splitlines()[0]

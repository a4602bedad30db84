"""Checking a mapping against a `Config` dataclass, with messages that name the key."""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from maquette.core.errors import ConfigError, UnknownKeyError

STRUCTURED_FLAGS = {"allow_objects": True}


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
        return OmegaConf.structured(cfg, flags=STRUCTURED_FLAGS)
    values = plain_mapping(cfg, key)
    check_keys(config_class, values, key)
    node = OmegaConf.structured(config_class, flags=STRUCTURED_FLAGS)
    hints = typing.get_type_hints(config_class)
    for name, value in values.items():
        _assign(node, name, value, hints[name], dotted(key, name))
    check_no_missing(node, key)
    return OmegaConf.structured(OmegaConf.to_object(node), flags=STRUCTURED_FLAGS)


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
        where = dotted(key, str(err.full_key)) if err.full_key else key
        raise ConfigError(where, _first_line(err), "an interpolation that resolves") from err
    assert isinstance(content, dict)
    return typing.cast("dict[str, Any]", content)


def check_no_missing(cfg: DictConfig, key: str = "") -> None:
    """Raise a ConfigError that names every key that still is `???`."""
    missing = sorted(OmegaConf.missing_keys(cfg))
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


def _assign(node: DictConfig, name: str, value: Any, hint: Any, key: str) -> None:
    if isinstance(value, list | tuple | ListConfig) and not _takes_list(hint):
        raise ConfigError(key, value, f"{_type_name(hint)}; a list is not accepted here")
    nested = _dataclass_of(hint)
    if nested is not None and isinstance(value, Mapping):
        value = parse_structured(nested, value, key)
    try:
        node[name] = value
    except OmegaConfBaseException as err:
        raise ConfigError(key, value, _type_name(hint)) from err


def _takes_list(hint: Any) -> bool:
    if hint is Any:
        return True
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    return any(one is Any or (typing.get_origin(one) or one) in (list, tuple) for one in options)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Union or type(hint).__name__ == "UnionType"


def _dataclass_of(hint: Any) -> type[Any] | None:
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    for one in options:
        if isinstance(one, type) and dataclasses.is_dataclass(one):
            return one
    return None


def _type_name(hint: Any) -> str:
    if _is_union(hint):
        return " or ".join("null" if one is type(None) else _type_name(one) for one in typing.get_args(hint))
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "a mapping"}
    if hint in words:
        return words[hint]
    return getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint)


def _first_line(err: Exception) -> str:
    return str(err).splitlines()[0]

"""Reading the free-form dictionaries that describe a network."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from maquette.core.errors import ConfigError, UnknownKeyError

NetworkConfig = Mapping[str, Any] | DictConfig


def default_encoding() -> dict[str, Any]:
    """The encoding of points that geometries have unless a recipe names another; a new copy each time."""
    return {
        "otype": "HashGrid",
        "n_levels": 16,
        "n_features_per_level": 2,
        "log2_hashmap_size": 19,
        "base_resolution": 16,
        "per_level_scale": 1.447269237440378,
    }


def default_network() -> dict[str, Any]:
    """The network that geometries have unless a recipe names another; a new copy each time."""
    return {
        "otype": "VanillaMLP",
        "activation": "ReLU",
        "output_activation": "none",
        "n_neurons": 64,
        "n_hidden_layers": 1,
    }


def plain(config: NetworkConfig) -> dict[str, Any]:
    """The dictionary behind a config node, interpolations resolved."""
    if isinstance(config, DictConfig):
        content = OmegaConf.to_container(config, resolve=True)
        assert isinstance(content, dict)
        return {str(key): value for key, value in content.items()}
    return dict(config)


def take(config: dict[str, Any], allowed: Mapping[str, Any], what: str) -> dict[str, Any]:
    """`allowed` (names with defaults) overridden by `config`.

    Raises:
        UnknownKeyError: `config` has a key that is not allowed.
        ConfigError: a number is given as text, or the other way round.
    """
    for key, value in config.items():
        if key not in allowed:
            raise UnknownKeyError(
                f"{what}.{key}", difflib.get_close_matches(key, allowed, n=3), list(allowed)
            )
        _check_type(f"{what}.{key}", value, allowed[key])
    return {**allowed, **config}


def _check_type(key: str, value: Any, default: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, bool) or default is None:
        return
    if isinstance(default, int) and not isinstance(value, int):
        raise ConfigError(key, value, "an integer")
    if isinstance(default, float) and not number:
        raise ConfigError(key, value, "a number")
    if isinstance(default, str) and not isinstance(value, str | None):
        raise ConfigError(key, value, "a name")

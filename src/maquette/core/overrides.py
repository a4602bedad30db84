"""`key.path=value` words of a command line."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from maquette.core.errors import ConfigError, UserError
from maquette.core.structured import escaped

NOT_A_PROMPT = ("prompt_processor", "prompt_debiasing_mask_ids")
"""Keys that begin like a prompt and are none."""


def split_override(word: str) -> tuple[str, str]:
    """Key and value of "key.path=value".

    Raises:
        UserError: it does not have this form.
    """
    key, equals, value = word.partition("=")
    key = key.strip()
    if not equals or not key or key.startswith("-"):
        raise UserError(
            f"{word!r} is not an override.", hint="overrides look like system.geometry.radius=2.0"
        )
    return key, value


def is_prompt_key(key: str) -> bool:
    """Whether the value of this key is text as a person wrote it."""
    name = key.rpartition(".")[2]
    return (name.startswith("prompt") or name == "negative_prompt") and name not in NOT_A_PROMPT


def parse_value(key: str, text: str) -> Any:
    """What the text of an override means: literally for prompts, as YAML for everything else.

    Raises:
        ConfigError: it is not YAML.
    """
    if is_prompt_key(key):
        return escaped(text)
    try:
        parsed = OmegaConf.create(f"value: {text}" if "\n" not in text else {"value": text})
    except (yaml.YAMLError, OmegaConfBaseException) as err:
        raise ConfigError(key, text, "a YAML value", "quote it, for example 'tag=\"a: b\"'") from err
    return OmegaConf.to_container(parsed, resolve=False)["value"]  # type: ignore[index, call-overload]


def apply_overrides(cfg: DictConfig, words: Sequence[str]) -> None:
    """Put each "key.path=value" into `cfg`, later ones over earlier ones.

    Raises:
        UserError: a word is no override, its value is no YAML, or the key leads through a plain value.
    """
    for word in words:
        key, text = split_override(word)
        put(cfg, key, parse_value(key, text))


def apply_values(cfg: DictConfig, values: Mapping[str, Any]) -> None:
    """Put values, by dotted key, into `cfg` as they are; text of prompts is taken literally."""
    for key, value in values.items():
        put(cfg, key, escaped(value) if is_prompt_key(key) and isinstance(value, str) else value)


def put(cfg: DictConfig, key: str, value: Any) -> None:
    """Set one dotted key; mappings are merged, everything else is replaced."""
    try:
        OmegaConf.update(cfg, key, value, merge=True)
    except (OmegaConfBaseException, AssertionError, ValueError, TypeError) as err:
        expected = "a key that leads through mappings and list positions only"
        raise ConfigError(key, value, expected) from err

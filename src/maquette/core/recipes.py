"""Recipes as they are written: where they lie, and what is in them."""

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from maquette.core.errors import ConfigError, MissingFileError, UserError
from maquette.core.log import get_logger
from maquette.core.paths import configs_dir

FORMAT = "maquette/1"
"""What `format:` says in the recipes written for maquette."""

COMPUTED_KEYS = ("exp_dir", "trial_name", "trial_dir")
"""Keys that the older framework writes into the configs of its runs, and that follow from others."""


def shipped_recipes() -> list[Path]:
    """Paths of the recipes that come with the package."""
    return sorted(configs_dir().glob("*.yaml"))


def recipe_path(source: str | Path) -> Path:
    """The file of a recipe that is given as a path, or by the name of a shipped one, which may also be
    written "configs/NAME.yaml" where there is no such file.

    Raises:
        MissingFileError: there is neither.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    name = path.stem if path.parts == ("configs", f"{path.stem}.yaml") else str(source)
    shipped = configs_dir(f"{name}.yaml")
    if Path(name).name == name and shipped.is_file():
        return shipped
    names = [one.stem for one in shipped_recipes()]
    near = difflib.get_close_matches(path.stem, names, n=3)
    known = f"did you mean {' or '.join(near)}?" if near else f"shipped recipes: {', '.join(names)}"
    raise MissingFileError(path, "recipe", hint=known)


def read_recipe(source: str | Path | Mapping[str, Any] | DictConfig) -> DictConfig:
    """A recipe as it is written: in a file, by its path or its shipped name, or given as it is (a copy).

    Raises:
        MissingFileError: there is no such recipe.
        ConfigError, UserError: it is no mapping, or no YAML that can be read.
    """
    if isinstance(source, DictConfig):
        return source.copy()
    if isinstance(source, Mapping):
        return OmegaConf.create(dict(source))
    path = recipe_path(source)
    try:
        with readable(f"the recipe {path}"):
            content = OmegaConf.load(path)
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise UserError(f"The recipe {path} is no valid YAML.", str(err).splitlines()[:6]) from err
    if not isinstance(content, DictConfig):
        raise UserError(f"The recipe {path} holds a list, not a mapping of keys to values.")
    return content


def translate_older(recipe: DictConfig, source: str | Path | Mapping[str, Any]) -> None:
    """A recipe without `format:` is one of the older framework's: leave out, in place, what it computes from
    other keys, and say so.
    """
    if OmegaConf.select(recipe, "format") is not None:
        return
    dropped = [key for key in COMPUTED_KEYS if key in recipe]
    for key in dropped:
        del recipe[key]
    where = recipe_path(source) if isinstance(source, str | Path) else "the given recipe"
    left_out = f"; left out, because computed: {', '.join(dropped)}" if dropped else ""
    get_logger(__name__).info(
        "%s has no `format: %s`: read as a recipe of the older kind%s", where, FORMAT, left_out
    )


@contextmanager
def readable(what: str) -> Iterator[None]:
    """What OmegaConf cannot make sense of is told with its key, where it knows that."""
    try:
        yield
    except OmegaConfBaseException as err:
        first = str(err).splitlines()[0]
        if err.full_key:
            raise ConfigError(str(err.full_key), first, "a value; ${key} for that of another key") from err
        raise UserError(f"{what[:1].upper()}{what[1:]} cannot be read.", [first]) from err

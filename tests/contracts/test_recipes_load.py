"""Every shipped recipe can be read, and its modules accept every key of it."""

import pytest
from omegaconf import OmegaConf

from maquette.apps.show import asks_for_a_prompt
from maquette.core.config import check_modules, load_config
from maquette.core.recipes import FORMAT, shipped_recipes
from maquette.core.registry import registry


def words_for(path) -> list[str]:
    """A value for the keys that a recipe leaves to its user."""
    return ["system.prompt_processor.prompt=a red mushroom"] if asks_for_a_prompt(path) else []


def test_there_are_recipes():
    assert shipped_recipes()


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda path: path.stem)
def test_recipe_loads_and_its_modules_accept_it(path):
    config = load_config(path, words_for(path))
    assert config.format == FORMAT
    check_modules(config)
    assert load_config(OmegaConf.create(config.to_yaml())).to_dict() == config.to_dict()


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda path: path.stem)
def test_smoke_preset_fits_the_recipe(path):
    config = load_config(path, [*words_for(path), "preset=smoke"])
    assert config.trainer.max_steps == 2
    check_modules(config)


@pytest.mark.parametrize("name", registry.names())
def test_every_registered_name_leads_to_a_class(name):
    cls = registry.find(name)
    assert isinstance(cls, type)
    assert getattr(cls, "kind", "") in ("", registry.kind_of(name))

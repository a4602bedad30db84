"""Coarse to fine in one recipe."""

import pytest
from omegaconf import OmegaConf

from maquette.core.config import check_modules, load_config, stage_configs
from maquette.core.errors import ConfigError, UnknownKeyError, UnknownNameError, UserError
from maquette.core.stages import difference, merged

RECIPE = """
format: maquette/1
tag: x
data_type: random-camera-datamodule
data:
  width: 64
  height: ${data.width}
system_type: dreamfusion-system
system:
  geometry_type: implicit-volume
  geometry:
    radius: 2.0
    density_bias: 1.0
  material_type: no-material
  material:
    color_activation: sigmoid
  renderer_type: nerf-volume-renderer
  renderer:
    radius: ${system.geometry.radius}
  loss:
    lambda_sds: 1.0
    lambda_sparsity: ${trainer.max_steps}
trainer:
  max_steps: 100
stages:
  - name: coarse
    trainer:
      max_steps: 30
  - name: refine
    system_type: magic3d-system
    data:
      width: 128
    system:
      refinement: true
      geometry_type: volume-grid
      geometry:
        radius: 1.5
      loss:
        lambda_sds: [0, 1.0, 0.5, "${trainer.max_steps}"]
    training:
      finish: []
"""


def load(*words, **cli):
    return load_config(OmegaConf.create(RECIPE), list(words), cli)


def test_each_stage_is_the_recipe_with_its_changes():
    cfg = load()
    coarse, refine = stage_configs(cfg)
    assert (cfg.trainer.max_steps, coarse.trainer.max_steps, refine.trainer.max_steps) == (100, 30, 100)
    assert coarse.system.geometry == {"radius": 2.0, "density_bias": 1.0}
    assert refine.system.geometry == {"radius": 1.5}, "another geometry: its block is replaced"
    assert refine.system.material == coarse.system.material, "the same material: its block is merged"
    assert refine.system.renderer.radius == 1.5, "what refers to another key follows it"
    assert coarse.system.loss.lambda_sparsity == 30 and refine.system.loss.lambda_sds == [0, 1.0, 0.5, 100]
    assert (refine.data.width, refine.data.height, refine.training.finish) == (128, 128, [])
    assert refine.system_type == "magic3d-system" and refine.system.refinement is True
    assert refine.stages == [] and refine.trial_dir == cfg.trial_dir


def test_what_a_stage_changes_is_shown_and_read_back_the_same():
    cfg = load("trainer.max_steps=50")
    again = load_config(OmegaConf.create(cfg.to_yaml()))
    assert again.to_dict() == cfg.to_dict()
    assert [one.to_dict() for one in stage_configs(again)] == [one.to_dict() for one in stage_configs(cfg)]
    assert cfg.stages[0] == {"name": "coarse"}, "max_steps is what the command line says, everywhere"
    assert list(cfg.stages[1]) == ["name", "data", "system_type", "training", "system"]


def test_words_change_every_stage_or_the_one_they_name():
    one, two = stage_configs(load("trainer.max_steps=2", "stages.1.trainer.max_steps=5"))
    assert (one.trainer.max_steps, two.trainer.max_steps) == (2, 5)
    one, two = stage_configs(load("stages.refine.trainer.max_steps=5", "trainer.max_steps=2"))
    assert (one.trainer.max_steps, two.trainer.max_steps) == (2, 2), "later words win"
    one, two = stage_configs(load("stages[0].seed=7", "stages.coarse.tag=y"))
    assert (one.seed, two.seed, one.tag) == (7, 0, "x"), "a stage has no name of its own for the run"
    one, two = stage_configs(load(**{"trainer.max_steps": 9}))
    assert (one.trainer.max_steps, two.trainer.max_steps) == (9, 9)


def test_a_preset_reaches_every_stage():
    for one in stage_configs(load("preset=smoke")):
        assert one.trainer.max_steps == 2 and one.data.width == 16
        assert one.system.geometry.isosurface_resolution == 16


def test_options_that_the_next_system_does_not_have_are_left_out():
    recipe = OmegaConf.create(RECIPE)
    recipe.system_type, recipe.system.refinement = "magic3d-system", False
    recipe.stages[1] = {"name": "refine", "system_type": "dreamfusion-system"}
    cfg = load_config(recipe)
    assert "refinement" not in stage_configs(cfg)[1].system
    assert "refinement" not in stage_configs(load_config(OmegaConf.create(cfg.to_yaml())))[1].system


@pytest.mark.parametrize(
    ("word", "error", "text"),
    [
        ("stages.2.seed=1", ConfigError, "a stage: 0 (coarse), 1 (refine)"),
        ("stages.fine.seed=1", ConfigError, "a stage: 0 (coarse), 1 (refine)"),
        ("stages.1.system.geometry_type=volume-gird", UnknownNameError, "in stage 1 (refine)"),
        ("stages.1.trainr.max_steps=1", UnknownKeyError, "did you mean trainer"),
        ("stages=3", ConfigError, "a list of mappings"),
        ("stages=[{name: a},{name: a}]", ConfigError, "no other stage"),
        ("stages=[{name: ../up}]", ConfigError, "stages.0.name"),
        ("stages=[{seed: 1}]", ConfigError, "stages.0.name"),
        ("stages=[{name: a, tag: b}]", UnknownKeyError, "stages.0.tag"),
        ("stages=[{name: a, sytem: {}}]", UnknownKeyError, "did you mean stages.0.system"),
    ],
)
def test_mistakes_are_named_with_their_stage(word, error, text):
    with pytest.raises(error) as caught:
        load(word)
    assert text in str(caught.value)


def test_modules_of_every_stage_are_checked_before_the_run():
    cfg = load("stages.1.system.material.colour_activation=exp")
    with pytest.raises(UnknownKeyError, match=r"system\.material\.colour_activation") as caught:
        check_modules(cfg)
    assert "in stage 1 (refine)" in str(caught.value)


def test_a_recipe_can_be_used_without_its_stages():
    cfg = load("stages=[]")
    assert cfg.stages == [] and stage_configs(cfg) == []
    with pytest.raises(UserError, match="there are no stages"):
        load("stages=[]", "stages.0.seed=1")


def test_difference_is_the_inverse_of_merging():
    base = {"seed": 0, "system": {"a_type": "x", "a": {"p": 1, "q": {"r": 2}}, "loss": {"k": 1}}}
    for changes in (
        {},
        {"seed": 3},
        {"system": {"a": {"q": {"r": 5}}}},
        {"system": {"a_type": "y", "a": {"s": 1}}},
        {"system": {"a_type": "y"}, "data": {"w": 1}},
    ):
        whole = merged(base, changes)
        assert merged(base, difference(base, whole)) == whole
    assert base["system"]["a"] == {"p": 1, "q": {"r": 2}}

"""From recipes and command lines to the config of a run."""

import logging
import re

import pytest
from omegaconf import OmegaConf

from maquette.core.config import ExperimentConfig, check_modules, load_config
from maquette.core.errors import ConfigError, MissingFileError, UnknownKeyError, UnknownNameError, UserError
from maquette.core.recipes import FORMAT, recipe_path
from maquette.core.registry import registry

RECIPE = """
format: maquette/1
name: example
tag: ${rmspace:${system.prompt_processor.prompt},_}
data_type: random-camera-datamodule
data:
  height: 64
  width: ${data.height}
system_type: dreamfusion-system
system:
  geometry_type: implicit-volume
  geometry:
    radius: 2.0
  prompt_processor_type: stable-diffusion-prompt-processor
  prompt_processor:
    prompt: ???
    pretrained_model_name_or_path: maquette/toyworld
  guidance_type: stable-diffusion-guidance
  guidance:
    pretrained_model_name_or_path: ${system.prompt_processor.pretrained_model_name_or_path}
trainer:
  max_steps: 100
"""
PROMPT = "system.prompt_processor.prompt"


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "example.yaml"
    path.write_text(RECIPE)
    return path


def load(recipe, *words, **cli):
    return load_config(recipe, [f"{PROMPT}=a red mushroom", *words], cli)


def test_recipe_overrides_and_interpolations(recipe):
    cfg = load(recipe, "data.height=[32, 64]", "trainer.max_steps=7", "system.geometry.radius=1e-3")
    assert isinstance(cfg, ExperimentConfig)
    assert cfg.data.width == cfg.data.height == [32, 64]
    assert (cfg.trainer.max_steps, cfg.system.geometry.radius) == (7, 0.001)
    assert cfg.system.guidance.pretrained_model_name_or_path == "maquette/toyworld"


def test_a_shipped_recipe_is_found_by_its_name_and_as_the_ecosystem_writes_it(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = recipe_path("playground-2d")
    assert recipe_path("configs/playground-2d.yaml") == shipped and recipe_path(recipe) == recipe
    (tmp_path / "configs").mkdir()
    own = tmp_path / "configs" / "playground-2d.yaml"
    own.write_text(RECIPE)
    assert recipe_path("configs/playground-2d.yaml").resolve() == own
    for wrong in ("other/playground-2d.yaml", "playground-2d.yaml", "configs/playground"):
        with pytest.raises(MissingFileError, match="did you mean playground-2d"):
            recipe_path(wrong)


def test_later_words_win_and_the_command_line_wins_over_all(recipe):
    cfg = load_config(
        recipe, [f"{PROMPT}=x", "seed=1", "seed=2"], {"trainer.max_steps": 9, PROMPT: "y: ${z}"}
    )
    assert (cfg.seed, cfg.trainer.max_steps, cfg.system.prompt_processor.prompt) == (2, 9, "y: ${z}")


YAML_WOULD_READ = ("a photo: x", "# one", "[a], {b", "on", "3", "null", "'", 'say "hi"')


@pytest.mark.parametrize("prompt", [*YAML_WOULD_READ, "a, b", "${x}", "a=b", "ein Pilz 🍄", ""])
def test_a_prompt_is_taken_literally(recipe, prompt):
    cfg = load_config(recipe, [f"{PROMPT}={prompt}", "tag=x"])
    assert cfg.system.prompt_processor.prompt == prompt
    again = load_config(OmegaConf.create(cfg.to_yaml()))
    assert again.to_dict() == cfg.to_dict()


def test_the_run_folder(recipe, tmp_path):
    cfg = load(recipe, f"exp_root_dir={tmp_path / 'out'}")
    assert cfg.trial_dir.parent == tmp_path / "out" / "example"
    assert re.fullmatch(r"a_red_mushroom@\d{8}-\d{6}", cfg.trial_dir.name)
    assert not (tmp_path / "out").exists()
    assert load(recipe, "use_timestamp=false").trial_dir.name == "a_red_mushroom"
    assert load(recipe, "timestamp='@once'").trial_dir.name == "a_red_mushroom@once"
    assert load(recipe, f"run_dir={tmp_path}/exactly").trial_dir == tmp_path / "exactly"


def test_a_run_folder_never_leaves_its_place(recipe):
    cfg = load_config(recipe, [f"{PROMPT}=../../{'word ' * 500}", "name=../up", "use_timestamp=false"])
    assert cfg.trial_dir.parts[:2] == ("outputs", "up")
    assert len(cfg.trial_dir.parts) == 3
    assert len(cfg.trial_dir.name) <= 80


def test_several_processes_share_a_folder_without_a_time(recipe):
    assert load(recipe, "n_gpus=2").trial_dir.name == "a_red_mushroom"


def test_required_keys_are_named_together_before_anything_resolves(recipe):
    with pytest.raises(ConfigError) as caught:
        load_config(recipe, ["data.height=???"])
    assert caught.value.key == f"data.height, {PROMPT}"
    assert f"{PROMPT}=..." in str(caught.value)


@pytest.mark.parametrize(
    ("word", "error", "text"),
    [
        ("sede=1", UnknownKeyError, "did you mean seed?"),
        ("seed=x", ConfigError, "Wrong value for seed"),
        ("seed=[1]", ConfigError, "a list is not accepted"),
        ("seed.x=1", ConfigError, "seed"),
        ("trainer=3", ConfigError, "a mapping"),
        ("tag={", ConfigError, "a YAML value"),
        ("format=maquette/99", ConfigError, "maquette/1"),
        ("training.max_steps=3", ConfigError, "not in both"),
        ("data.width=${data.heigth}", ConfigError, "data.width"),
        ("system.geometry_type=implicit-volum", UnknownNameError, "did you mean implicit-volume"),
        ("system.geometry_type=no-material", UnknownNameError, "system.geometry_type"),
        ("system_type=dreamfusion", UnknownNameError, "dreamfusion-system"),
        ("preset=smok", UnknownNameError, "did you mean smoke?"),
        ("--seed=1", UserError, "is not an override"),
        ("seed", UserError, "is not an override"),
        ("=1", UserError, "is not an override"),
    ],
)
def test_a_mistake_is_named_on_one_screen(recipe, word, error, text):
    with pytest.raises(error) as caught:
        load(recipe, word)
    assert text in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 6


def test_a_run_needs_a_name(recipe):
    assert load_config(recipe, [f"{PROMPT}=x", "tag=''"]).trial_dir.name.startswith("@")
    with pytest.raises(ConfigError, match="use_timestamp"):
        load_config(recipe, [f"{PROMPT}=x", "tag=''", "use_timestamp=false"])


def test_files_that_are_absent_broken_or_no_mapping(tmp_path):
    with pytest.raises(MissingFileError, match=r"shipped recipes|did you mean"):
        load_config("no-such-recipe")
    (tmp_path / "broken.yaml").write_text("a: [1\nb: 2\n")
    with pytest.raises(UserError, match=r"broken\.yaml[\s\S]*line"):
        load_config(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(UserError, match="a list"):
        load_config(tmp_path / "list.yaml")


def test_a_recipe_of_the_older_kind_is_read_with_a_notice(recipe, caplog):
    recipe.write_text(RECIPE.replace("format: maquette/1\n", "trial_dir: outputs/x\n"))
    with caplog.at_level(logging.INFO, "maquette"):
        cfg = load(recipe)
    assert cfg.format is None
    assert f"format: {FORMAT}" in caplog.text
    assert "trial_dir" in caplog.text


def test_check_modules_names_the_key_of_a_part(recipe, monkeypatch):
    cfg = load(recipe)
    part = type("Part", (), {"Config": ExperimentConfig})
    monkeypatch.setattr(registry, "find", lambda name, kind: part if kind == "geometry" else object)
    with pytest.raises(UnknownKeyError) as caught:
        check_modules(cfg)
    assert caught.value.key == "system.geometry.radius"


def test_an_extension_is_imported_before_its_names_are_checked(recipe, tmp_path):
    extension = tmp_path / "maquette_test_material.py"
    extension.write_text(
        "import maquette\n@maquette.register('test-stone', kind='material')\nclass Stone: ...\n"
    )
    cfg = load(recipe, f"extensions=[{extension}]", "system.material_type=test-stone")
    assert registry.find(cfg.system.material_type, "material").__name__ == "Stone"


EXTENSION = """
from dataclasses import dataclass
import maquette

class Base:
    @dataclass(kw_only=True)
    class Config:
        radius: float = 1.0

@maquette.register('test-cube', kind='geometry')
class Cube(Base):
    @dataclass(kw_only=True)
    class Config(Base.Config):
        side: float = 1.0
"""


def test_options_of_a_module_that_is_replaced_are_left_out_with_a_notice(recipe, tmp_path, caplog):
    (tmp_path / "maquette_test_cube.py").write_text(EXTENSION)
    recipe.write_text(RECIPE.replace("radius: 2.0", "radius: 2.0\n    density_bias: 1.0"))
    words = [f"extensions=[{tmp_path / 'maquette_test_cube.py'}]", "system.geometry_type=test-cube"]
    with caplog.at_level(logging.INFO, "maquette"):
        cfg = load(recipe, *words, "system.geometry.side=3.0")
    assert cfg.system.geometry == {"radius": 2.0, "side": 3.0}, "what both have stays"
    assert [r.message for r in caplog.records if "left out" in r.message] == [
        "system.geometry_type=test-cube: left out, because it has no such options: density_bias"
    ]
    given = load(recipe, *words, "system.geometry.density_bias=2.0").system.geometry
    assert "density_bias" in given, "what a person asks for is refused, not forgotten"
    assert "density_bias" in load(recipe, "system.geometry_type=implicit-volume").system.geometry


RESOLVED = {
    "${add:1,2}": 3,
    "${sub:5,2}": 3,
    "${mul:2,3}": 6,
    "${div:1,2}": 0.5,
    "${idiv:7,2}": 3,
    "${not:true}": False,
    "${gt0:0.5}": True,
    "${basename:/a/b.png}": "b.png",
    "${rmspace:a b c,_}": "a_b_c",
    "${tuple2:3}": [3.0, 3.0],
    "${calc_exp_lr_decay_rate:0.25,2}": 0.5,
    "${cmaxgt0:0.0}": False,
    "${cmaxgt0:[0,0.0,1.0,10]}": True,
    "${cmaxgt0orcmaxgt0:0,[0,0.0,1.0,10]}": True,
}


@pytest.mark.parametrize(("expression", "value"), RESOLVED.items(), ids=RESOLVED.keys())
def test_resolvers_of_the_ecosystem(recipe, expression, value):
    assert (
        load(recipe, f"data.x={expression}" if ":[" not in expression else f"data.x='{expression}'").data.x
        == value
    )


def test_a_rate_over_no_steps_is_told_with_the_key_it_is_computed_from(recipe):
    rate = "${calc_exp_lr_decay_rate:0.2,${trainer.max_steps}}"
    with pytest.raises(ConfigError) as caught:
        load(recipe, f"data.x={rate}", "trainer.max_steps=0")
    assert caught.value.key == "data.x" and caught.value.got == rate
    assert caught.value.expected.endswith("(calc_exp_lr_decay_rate needs a number of steps that is not 0)")

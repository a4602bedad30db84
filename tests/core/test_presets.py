"""The smoke preset touches what the modules know, and nothing else."""

from dataclasses import dataclass, field

import pytest

from maquette.core.config import load_config
from maquette.core.errors import UnknownNameError
from maquette.core.registry import registry


class Data:
    @dataclass(kw_only=True)
    class Config:
        height: int = 512
        unknown_to_the_preset: int = 7


class System:
    @dataclass(kw_only=True)
    class Config:
        geometry_type: str = ""
        geometry: dict = field(default_factory=dict)


class Geometry:
    @dataclass(kw_only=True)
    class Config:
        isosurface_resolution: int = 128
        pos_encoding_config: dict = field(default_factory=lambda: {"otype": "HashGrid", "n_levels": 16})


@pytest.fixture
def _modules(monkeypatch):
    classes = {"test-data": Data, "test-system": System, "test-geometry": Geometry}
    monkeypatch.setattr(registry, "find", lambda name, kind=None: classes[name])
    monkeypatch.setattr(registry, "check", lambda *args, **kwargs: None)


RECIPE = {
    "format": "maquette/1",
    "tag": "x",
    "data_type": "test-data",
    "data": {"unknown_to_the_preset": 9},
    "system_type": "test-system",
    "system": {"geometry_type": "test-geometry"},
    "trainer": {"max_steps": 10000, "precision": "16-mixed"},
}


@pytest.mark.usefixtures("_modules")
def test_only_known_keys_are_touched():
    cfg = load_config(RECIPE, ["preset=smoke"])
    assert cfg.data == {"unknown_to_the_preset": 9, "height": 16}
    assert cfg.system.geometry == {
        "isosurface_resolution": 16,
        "pos_encoding_config": {"otype": "HashGrid", "n_levels": 4},
    }
    assert set(cfg.system) == {"geometry_type", "geometry"}
    assert cfg.trainer == {"max_steps": 2, "precision": "32-true"}


@pytest.mark.usefixtures("_modules")
@pytest.mark.parametrize(("name", "text"), [("smok", "did you mean smoke?"), ("fast", "known: smoke")])
def test_an_unknown_preset_names_those_there_are(name, text):
    with pytest.raises(UnknownNameError) as caught:
        load_config(RECIPE, [f"preset={name}"])
    assert text in str(caught.value) and "modules" not in str(caught.value)


@pytest.mark.usefixtures("_modules")
def test_other_overrides_win_over_the_preset():
    cfg = load_config(RECIPE, ["data.height=20", "preset=smoke", "trainer.max_steps=3"])
    assert (cfg.data.height, cfg.trainer.max_steps) == (20, 3)


@pytest.mark.parametrize(
    ("words", "asked", "guiding"),
    [
        ([], "maquette/random-tiny", "maquette/random-tiny"),
        (["system.prompt_processor.pretrained_model_name_or_path=mine"], "mine", "mine"),
        (["system.guidance.pretrained_model_name_or_path=mine"], "maquette/random-tiny", "mine"),
    ],
)
def test_what_refers_to_the_model_follows_it(words, asked, guiding):
    cfg = load_config("first-light", ["system.prompt_processor.prompt=a toy", "preset=smoke", *words])
    assert cfg.system.prompt_processor.pretrained_model_name_or_path == asked
    assert cfg.system.guidance.pretrained_model_name_or_path == guiding

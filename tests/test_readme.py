"""What the README says about a module of one's own, done as it is written there."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from maquette.core.config import check_modules, load_config
from maquette.core.random import RandomStreams
from maquette.core.registry import find, load_extension, registry
from maquette.data.random_camera import RandomCameraDataModule

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The overrides of the README's command; its module is loaded for one test only."""
    section = README.read_text(encoding="utf-8").partition("## A module of your own")[2]
    code, shell = re.findall(r"```(?:python|bash)\n(.*?)```", section, flags=re.DOTALL)[:2]
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    (tmp_path / "readme_modules.py").write_text(code)
    load_extension(tmp_path / "readme_modules.py")
    words = shlex.split(shell)
    assert words[:2] == ["maquette", "generate"] and "--extension" in words
    return [word for word in words if "=" in word]


def test_the_module_of_the_readme_is_rendered_and_trained_by_the_default_recipe(command):
    words = [*command, "system.prompt_processor.prompt=x", "data.width=8", "data.height=8"]
    cfg = load_config("first-light", words)
    check_modules(cfg)
    geometry = find(cfg.system.geometry_type, "geometry")(cfg.system.geometry)
    material = find(cfg.system.material_type, "material")(cfg.system.material)
    background = find(cfg.system.background_type, "background")(cfg.system.background)
    renderer = find(cfg.system.renderer_type, "renderer")(cfg.system.renderer, geometry, material, background)
    cameras = RandomCameraDataModule(cfg.data, RandomStreams(0)).train_dataloader()
    out = renderer(**next(iter(cameras)))
    assert out.opacity.max() > 0.9 and out.comp_rgb_fg.max() > 0.3
    torch.testing.assert_close(out.comp_rgb_fg[..., 0], out.comp_rgb_fg[..., 2])
    out.comp_rgb.mean().backward()
    assert geometry.encoding.encoding.table.grad.abs().sum() > 0
    albedo = material.export(torch.zeros(5, 3))["albedo"]
    torch.testing.assert_close(albedo, torch.full((5, 3), 0.7))

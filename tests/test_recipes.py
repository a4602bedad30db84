"""Every recipe that comes along takes two steps on the CPU and leaves what it promises."""

import math
from pathlib import Path

import pytest

from maquette.apps.show import asks_for_a_prompt
from maquette.core.config import load_config
from maquette.core.recipes import shipped_recipes
from maquette.training.run import run
from maquette.training.run_folder import RunFolder


def words_for(path: Path) -> list[str]:
    return ["system.prompt_processor.prompt=a red mushroom"] if asks_for_a_prompt(path) else []


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda path: path.stem)
def test_recipe_runs(path: Path, tmp_path: Path) -> None:
    words = [*words_for(path), "preset=smoke", f"exp_root_dir={tmp_path}", "training.snapshot_code=false"]
    result = run(load_config(path, words), mode="train")
    assert result.global_step == 2 and math.isfinite(result.last_loss)
    assert RunFolder(result.trial_dir).has_checkpoint
    assert all(path.stat().st_size > 0 for path in result.files)

"""Looking at a run does not change its result: a whole text-to-3D system, small."""

from pathlib import Path

import pytest
import torch

from maquette.core.config import load_config
from maquette.core.loading import load_checkpoint
from maquette.training.profiling.tools import Tools
from maquette.training.run import run

WATCHED = (
    "training.logging.histograms=[weights, gradients, activations]", "training.logging.histograms_every=1",
    "training.collapse.every=1", "training.checkpoint_every=1", "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=1", "trainer.limit_val_batches=1",
)  # fmt: skip
ALONE = (
    "training.loggers=[]", "training.logging.timing=false", "training.collapse.enabled=false",
    "training.growth.enabled=false", "training.checkpoint_every=1000", "trainer.limit_val_batches=0",
)  # fmt: skip


@pytest.mark.parametrize("recipe", ["first-light", "gaussians"])
def test_validation_logs_and_instruments_do_not_change_a_bit(tmp_path: Path, recipe: str) -> None:
    states = []
    for name, settings, tools in (("on", WATCHED, Tools(sync_audit=True)), ("off", ALONE, Tools())):
        always = (
            "preset=smoke", f"run_dir={tmp_path / name}", "training.finish=[]",
            "system.prompt_processor.prompt=a red mushroom", "trainer.max_steps=3",
            "training.snapshot_code=false", "trainer.num_sanity_val_steps=0",
        )  # fmt: skip
        run(load_config(recipe, [*always, *settings]), "train", tools=tools)
        states.append(load_checkpoint(tmp_path / name / "ckpts" / "last.ckpt")["state_dict"])
    on, off = states
    assert on.keys() == off.keys() and any(one.is_floating_point() for one in on.values())
    assert [name for name in on if not torch.equal(on[name], off[name])] == []

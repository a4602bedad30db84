"""Nothing that draws from the global generators can tell where a run was resumed, or what else has drawn."""

from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.training.run import run


@pytest.fixture
def drawn(toy: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """What torch's own generator gives in each step of training, and for each view."""
    seen: dict[str, list[float]] = {"training_step": [], "test_step": []}
    for name, values in seen.items():
        original = getattr(toy.system, name)

        def step(self: Any, *args: Any, original: Any = original, values: Any = values) -> Any:
            values.append(float(torch.rand(())))
            return original(self, *args)

        monkeypatch.setattr(toy.system, name, step)
    return seen


def test_draws_of_a_batch_follow_from_its_number(toy: Any, tmp_path: Path, drawn: Any) -> None:
    two = "trainer.accumulate_grad_batches=2"
    run(toy(two, f"run_dir={tmp_path / 'whole'}"), "train")
    whole = {name: list(values) for name, values in drawn.items()}
    assert len(set(whole["training_step"])) == 8 and len(set(whole["test_step"])) == 3
    for values in drawn.values():
        values.clear()
    parts = (two, f"run_dir={tmp_path / 'parts'}")
    run(toy(*parts, "trainer.max_steps=2", "training.finish=[]"), "train")
    watched = ("trainer.val_check_interval=1", "trainer.limit_val_batches=1")
    run(toy(*parts, *watched), "train", resume=tmp_path / "parts")
    assert drawn == whole
    drawn["test_step"].clear()
    run(toy(two), "test", resume=tmp_path / "parts" / "ckpts" / "last.ckpt")
    assert drawn["test_step"] == whole["test_step"]

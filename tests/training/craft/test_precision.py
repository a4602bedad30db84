import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.core.errors import ConfigError
from maquette.core.loading import load_checkpoint
from maquette.training.config import TrainingConfig
from maquette.training.craft.precision import precision_settings
from maquette.training.run import run


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maquette.training.craft.precision.is_gpu", lambda device: False)


@pytest.mark.parametrize(
    ("wanted", "by_name", "chosen", "told"),
    [
        (None, None, 32, False),
        (32, None, 32, False),
        ("64-true", None, "64-true", False),
        ("16-mixed", None, "32-true", True),
        ("bf16-mixed", None, "32-true", True),
        ("16-mixed", "bf16-mixed", "bf16-mixed", True),
        ("bf16-mixed", "bf16-mixed", "bf16-mixed", False),
        (32, "32-true", "32-true", False),
        (32, "64-true", "64-true", True),
    ],
)
def test_precision_of_a_cpu_is_32_or_asked_by_name(
    on_cpu: None, caplog: pytest.LogCaptureFixture, wanted: Any, by_name: str | None, chosen: Any, told: bool
) -> None:
    with caplog.at_level(logging.INFO, "maquette"):
        settings = precision_settings(wanted, TrainingConfig(precision_on_cpu=by_name))
    assert settings == {"precision": chosen}
    assert ("training.precision_on_cpu" in caplog.text) == told


def test_a_gpu_computes_in_what_the_recipe_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maquette.training.craft.precision.is_gpu", lambda device: True)
    assert precision_settings("16-mixed", TrainingConfig(precision_on_cpu="64")) == {"precision": "16-mixed"}


def test_unknown_precisions_are_refused() -> None:
    with pytest.raises(ConfigError, match="16-mixed") as caught:
        TrainingConfig(precision_on_cpu="fp16")
    assert caught.value.key == "training.precision_on_cpu"


def weights(folder: Path) -> torch.Tensor:
    return load_checkpoint(folder / "ckpts" / "last.ckpt")["state_dict"]["inner.weight"]


def test_half_with_a_scaler_learns_what_full_does_and_resumes(toy: Any, tmp_path: Path) -> None:
    half = ("trainer.precision=16-mixed", "training.precision_on_cpu=16-mixed", "training.finish=[]")
    clip = "trainer.gradient_clip_val=0.01"
    run(toy("training.finish=[]", clip, f"run_dir={tmp_path / 'full'}"), "train")
    run(toy(*half, clip, f"run_dir={tmp_path / 'half'}"), "train")
    torch.testing.assert_close(weights(tmp_path / "half"), weights(tmp_path / "full"), rtol=1e-3, atol=1e-3)
    stored = load_checkpoint(tmp_path / "half" / "ckpts" / "last.ckpt")
    assert stored["MixedPrecision"]["scale"] == 65536.0 and stored["MixedPrecision"]["_growth_tracker"] == 4
    run(toy(*half, clip, f"run_dir={tmp_path / 'parts'}", "trainer.max_steps=2"), "train")
    last = tmp_path / "parts" / "ckpts" / "last.ckpt"
    run(toy(*half, clip, f"run_dir={tmp_path / 'parts'}"), "train", resume=last)
    assert torch.equal(weights(tmp_path / "parts"), weights(tmp_path / "half"))
    assert load_checkpoint(last)["MixedPrecision"]["_growth_tracker"] == 4


def test_matrix_products_are_as_precise_in_every_mode(toy: Any, tmp_path: Path) -> None:
    before = torch.get_float32_matmul_precision()
    try:
        wanted = "training.matmul_precision=high"
        run(toy(wanted, "training.finish=[]"), "train")
        torch.set_float32_matmul_precision("highest")
        last = tmp_path / "run" / "ckpts" / "last.ckpt"
        run(toy(wanted), "test", resume=last)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)

"""What `launch` does in which order: that of the launch.py which this ecosystem knows.

Three things stand elsewhere than there:

- The loggers come before the callbacks, some of which are only there if something is logged.
- The command line, the recipe and the source are written when all parts have been made and nothing is left
  to refuse, so that a mistake leaves no trace.
- Training ends with an export, which there belongs to the web page.
"""

import functools
from pathlib import Path
from typing import Any

import lightning.pytorch
import pytest

import maquette.apps.running as running
import maquette.core.device as device
import maquette.training.job as job
from maquette.apps.main import main
from maquette.core.registry import find
from maquette.training.run_folder import RunFolder

MODEL = ["gpus", "logging", "extensions", "config", "seed", "data module", "system", "save folder"]
ORDER = {
    "train": [*MODEL, "loggers", "callbacks", "trainer", "config snapshot", "command line", "code snapshot",
              "fit", "test", "export"],
    "validate": [*MODEL, "trainer", "status", "validate"],
    "test": [*MODEL, "trainer", "status", "test"],
    "export": [*MODEL, "trainer", "status", "export"],
}  # fmt: skip


@pytest.fixture
def order(toy: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has been called, each when it was called first; everything is really done."""
    called: list[str] = []
    trainer = lightning.pytorch.Trainer
    places = [
        ("gpus", device, "select_gpus"), ("logging", running, "setup_logging"),
        ("extensions", running, "load_extension"), ("config", running, "load_config"),
        ("seed", job, "seed_everything"), ("data module", find("toy-data", "data"), "__init__"),
        ("system", toy.system, "__init__"), ("save folder", toy.system, "set_save_dir"),
        ("callbacks", job, "standard_callbacks"), ("loggers", job, "make_loggers"),
        ("trainer", trainer, "__init__"), ("command line", RunFolder, "write_command"),
        ("config snapshot", RunFolder, "write_configs"), ("code snapshot", RunFolder, "write_code"),
        ("status", toy.system, "set_resume_status"), ("fit", trainer, "fit"),
        ("validate", trainer, "validate"), ("test", trainer, "test"), ("export", trainer, "predict"),
    ]  # fmt: skip

    def recorded(name: str, original: Any) -> Any:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if name not in called:
                called.append(name)
            return original(*args, **kwargs)

        return call

    for name, owner, attribute in places:
        monkeypatch.setattr(owner, attribute, recorded(name, getattr(owner, attribute)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return called


def test_launch_does_what_the_older_one_does_in_its_order(toy: Any, order: list[str], tmp_path: Path) -> None:
    recipe, extension = tmp_path / "recipe.yaml", tmp_path / "mine.py"
    recipe.write_text(toy("training.snapshot_code=true", "trainer.max_steps=1").to_yaml())
    extension.write_text("")
    words = ["launch", "--config", str(recipe), "--gpu", "0", "--extension", str(extension)]
    for mode, expected in ORDER.items():
        order.clear()
        resumed = [] if mode == "train" else ["--resume", str(tmp_path / "run")]
        assert main([*words, f"--{mode}", *resumed]) == 0
        assert order == expected

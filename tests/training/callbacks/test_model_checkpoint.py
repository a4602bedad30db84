"""The `checkpoint:` block: when, which, what, and under which names."""

import re
from pathlib import Path
from typing import Any

import pytest

from maquette.core.errors import ConfigError
from maquette.core.loading import load_checkpoint
from maquette.training.run import run
from maquette.training.run_folder import RunFolder
from maquette.training.trainer import recipe_checkpoints


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "run" / "ckpts").iterdir())


@pytest.mark.parametrize(
    ("settings", "files"),
    [
        (
            ("every_n_train_steps=2", "save_top_k=-1", "'filename=at-{step}'"),
            ["at-step=2.ckpt", "at-step=4.ckpt"],
        ),
        (("every_n_train_steps=2", "save_top_k=1", "'filename=at-{step}'"), ["at-step=4.ckpt"]),
        (("every_n_train_steps=2", "save_last=true", "save_top_k=0"), []),
    ],
    ids=["every", "newest", "last"],
)
def test_by_steps(toy: Any, tmp_path: Path, settings: tuple[str, ...], files: list[str]) -> None:
    words = [f"checkpoint.{one.strip(chr(39))}" for one in settings]
    run(toy(*words, "training.finish=[]"), "train")
    assert left(tmp_path) == sorted([*files, "last.ckpt"])


def test_the_best_are_kept_and_named_by_their_metric(toy: Any, tmp_path: Path) -> None:
    words = ("checkpoint.every_n_train_steps=1", "checkpoint.save_top_k=2", "checkpoint.monitor=train/loss")
    config = toy(*words, "checkpoint.auto_insert_metric_name=false", "training.finish=[]")
    config.checkpoint["filename"] = "s{step}-{train/loss:.3f}"
    run(config, "train")
    kept = [name for name in left(tmp_path) if name != "last.ckpt"]
    losses = {name: float(name.removesuffix(".ckpt").rpartition("-")[2]) for name in kept}
    assert len(kept) == 2
    for name, value in losses.items():
        content = load_checkpoint(tmp_path / "run" / "ckpts" / name)
        (state,) = [one for key, one in content["callbacks"].items() if key.startswith("ModelCheckpoint")]
        assert content["global_step"] == int(name[1]) and float(state["current_score"]) == pytest.approx(
            value, abs=1e-3
        )


@pytest.mark.parametrize(
    ("filename", "named", "name"),
    [
        ("{step}-{train/loss:.3f}", True, r"step=4-train-loss=\d\.\d{3}\.ckpt"),
        ("{step}-{train/loss:.3f}", False, r"4-\d\.\d{3}\.ckpt"),
        ("best/of-{step:03d}", True, r"best-of-step=004\.ckpt"),
    ],
)
def test_names_of_metrics_make_no_folders(
    toy: Any, tmp_path: Path, filename: str, named: bool, name: str
) -> None:
    config = toy("checkpoint.every_n_train_steps=4", "training.finish=[]")
    config.checkpoint.update(filename=filename, auto_insert_metric_name=named)
    run(config, "train")
    found = [path.name for path in RunFolder(tmp_path / "run").checkpoints if path.name != "last.ckpt"]
    assert len(found) == 1 and re.fullmatch(name, found[0])


def test_weights_only_has_no_optimizer(toy: Any, tmp_path: Path) -> None:
    words = ("checkpoint.every_n_train_steps=4", "checkpoint.save_weights_only=true")
    config = toy(*words, "training.finish=[]")
    config.checkpoint["filename"] = "weights"
    run(config, "train")
    content = load_checkpoint(tmp_path / "run" / "ckpts" / "weights.ckpt")
    assert "optimizer_states" not in content and set(content["state_dict"])
    assert "optimizer_states" in load_checkpoint(tmp_path / "run" / "ckpts" / "last.ckpt")


def test_by_wall_time(toy: Any, tmp_path: Path) -> None:
    config = toy("training.finish=[]")
    config.checkpoint.update(
        train_time_interval="0.001s",
        save_top_k=-1,
        filename="timed-{step}",
        auto_insert_metric_name=False,
    )
    run(config, "train")
    assert {"timed-1.ckpt", "timed-4.ckpt"} <= set(left(tmp_path))


def test_by_epochs(toy: Any, tmp_path: Path) -> None:
    config = toy("training.finish=[]", "trainer.max_steps=-1", "trainer.max_epochs=2")
    config.trainer["limit_train_batches"] = 3
    config.checkpoint.update(
        every_n_epochs=1, save_top_k=-1, filename="e{epoch}", auto_insert_metric_name=False
    )
    run(config, "train")
    assert {"e0.ckpt", "e1.ckpt"} <= set(left(tmp_path))
    assert load_checkpoint(tmp_path / "run" / "ckpts" / "e1.ckpt")["global_step"] == 6


def test_every_callback_has_a_key_of_its_own_and_those_with_state_come_back(toy: Any, tmp_path: Path) -> None:
    run(toy("training.finish=[]", "training.ema.enabled=true", "trainer.max_steps=2"), "train")
    last = tmp_path / "run" / "ckpts" / "last.ckpt"
    before = load_checkpoint(last)["callbacks"]
    assert {"CollapseWatch", "TimeBudget", "EMA"} <= set(before)
    config = toy("training.finish=[]", "training.ema.enabled=true", "training.collapse.every=1")
    run(config, "train", resume=last)
    after = load_checkpoint(last)["callbacks"]
    assert after["TimeBudget"]["spent"] > before["TimeBudget"]["spent"]
    assert (
        after["CollapseWatch"]["norms"][: len(before["CollapseWatch"]["norms"])]
        == before["CollapseWatch"]["norms"]
    )


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "every_n_step=3",
            r"Unknown key checkpoint\.every_n_step\.\n.*did you mean checkpoint\.every_n_train_steps",
        ),
        ("save_top_k=many", r"checkpoint\.save_top_k\.\n.*\n  expected: a whole number$"),
        ("dirpath=elsewhere", r"Unknown key checkpoint\.dirpath"),
        ("save_top_k=-2", r"checkpoint\.save_top_k\.\n"),
    ],
)
def test_mistakes_are_told_by_their_key(word: str, said: str, toy: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        recipe_checkpoints(toy(f"checkpoint.{word}").checkpoint, RunFolder(tmp_path))

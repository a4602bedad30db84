import json
import math
import os
import re
import resource
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from maquette.core.errors import (
    CollapseError,
    ConfigError,
    MissingFileError,
    RunFailed,
    UnknownKeyError,
    UserError,
)
from maquette.core.loading import load_checkpoint
from maquette.training.run import run
from maquette.training.weights import averaged_state


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "ckpts" / "last.ckpt")["state_dict"]


def test_train_leaves_the_output_tree(toy: Any, tmp_path: Path) -> None:
    result = run(toy("training.snapshot_code=true"), "train")
    assert result.global_step == 4 and math.isfinite(result.last_loss) and not result.interrupted
    assert result.files == [tmp_path / "run" / "answer.txt"]
    promised = (
        "ckpts/last.ckpt", "configs/parsed.yaml", "config.yaml", "cmd.txt", "code/maquette/__init__.py",
        "csv_logs/version_0/metrics.csv", "save/answer.json", "run.json",
    )  # fmt: skip
    for name in promised:
        assert (tmp_path / "run" / name).is_file(), name
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "done" and record["seed"] == 0 and record["global_step"] == 4
    assert set(record["seconds"]) == {"loading", "optimising", "rendering", "exporting"}
    assert record["machine"]["threads"] >= 1 and record["versions"]["torch"] == torch.__version__


def test_each_updateable_is_told_once_a_step_children_first(toy: Any, calls: list[str]) -> None:
    run(toy("trainer.max_steps=2", "training.finish=[]"), "train")
    one_step = [
        "preprocess train", "dataset.update {0}", "inner.update {0}", "outer.update {0}", "system.update {0}",
        "training_step", "dataset.update_end {1}", "inner.update_end {1}", "outer.update_end {1}",
        "system.update_end {1}",
    ]  # fmt: skip
    assert calls == [line.format(step, step + 1) for step in (0, 1) for line in one_step]


def test_resumed_run_equals_uninterrupted_run(toy: Any, tmp_path: Path) -> None:
    run(toy("trainer.max_steps=6", f"run_dir={tmp_path / 'whole'}"), "train")
    run(toy("trainer.max_steps=3", f"run_dir={tmp_path / 'parts'}"), "train")
    config = toy("trainer.max_steps=6", f"run_dir={tmp_path / 'parts'}")
    result = run(config, "train", resume=tmp_path / "parts" / "ckpts" / "last.ckpt")
    assert result.global_step == 6
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("mode", ["validate", "test", "export"])
def test_evaluation_needs_weights(toy: Any, tmp_path: Path, mode: Any) -> None:
    with pytest.raises(UserError, match="needs the weights"):
        run(toy(), mode)
    assert not (tmp_path / "run").exists()


def test_evaluation_uses_the_weights_and_the_step_of_the_checkpoint(
    toy: Any, tmp_path: Path, calls: list[str]
) -> None:
    run(toy("training.finish=[]"), "train")
    calls.clear()
    result = run(toy(), "export", resume=tmp_path / "run" / "ckpts" / "last.ckpt")
    assert result.global_step == 4 and "system.update 4" in calls and "system.update 0" not in calls
    records = [json.loads((tmp_path / "run" / name).read_text()) for name in ("run.json", "run-export.json")]
    assert [record["mode"] for record in records] == ["train", "export"]
    saved = json.loads((tmp_path / "run" / "save" / "answer.json").read_text())
    assert saved["weight"] == weights(tmp_path / "run")["inner.weight"].tolist()


@pytest.mark.parametrize(("mode", "stage"), [("validate", "validation"), ("test", "test")])
def test_views_are_rendered_at_the_step_of_the_checkpoint(
    toy: Any, tmp_path: Path, calls: list[str], mode: Any, stage: str
) -> None:
    run(toy("training.finish=[]"), "train")
    calls.clear()
    config = toy("trainer.limit_val_batches=1.0")
    result = run(config, mode, resume=tmp_path / "run" / "ckpts" / "last.ckpt")
    assert calls.count(f"preprocess {stage}") == 3 and calls.count("system.update_end 4") == 3
    assert result.files == [] and set(result.seconds) == {"loading", "rendering"}
    assert json.loads((tmp_path / "run" / f"run-{mode}.json").read_text())["global_step"] == 4


def test_average_is_what_is_evaluated_and_is_in_the_checkpoint(toy: Any, tmp_path: Path) -> None:
    settings = ("training.ema.enabled=true", "training.ema.decay=0.5")
    run(toy(*settings), "train")
    content = load_checkpoint(tmp_path / "run" / "ckpts" / "last.ckpt")
    average = content["callbacks"]["EMA"]["average"]["inner.weight"]
    assert not torch.equal(average, content["state_dict"]["inner.weight"])
    saved = json.loads((tmp_path / "run" / "save" / "answer.json").read_text())
    assert saved["weight"] == average.tolist()
    products = tmp_path / "run" / "answer.txt"
    assert products.read_text() == str(averaged_state(content)["inner.weight"].tolist())
    products.unlink()
    run(toy(*settings), "export", resume=tmp_path / "run" / "ckpts" / "last.ckpt")
    assert products.read_text() == str(averaged_state(content)["inner.weight"].tolist())
    again = json.loads((tmp_path / "run" / "save" / "answer.json").read_text())
    assert again == saved


def test_loss_that_is_no_number_ends_the_run(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> dict[str, Any]:
        self.set_loss("fit", self.inner.weight.sum() * math.nan)
        return {"loss": self.total_loss()}

    monkeypatch.setattr(toy.system, "training_step", training_step)
    with pytest.raises(CollapseError, match="loss is nan at step 1"):
        run(toy("training.checkpoint_every=2"), "train")
    assert not (tmp_path / "run" / "ckpts" / "last.ckpt").exists()


def test_ctrl_c_once_finishes_the_step_and_exports(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = toy.system.training_step

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.global_step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(toy.system, "training_step", training_step)
    before = signal.getsignal(signal.SIGINT)
    result = run(toy("trainer.max_steps=50"), "train")
    assert result.interrupted and result.global_step == 2 and result.files
    assert load_checkpoint(tmp_path / "run" / "ckpts" / "last.ckpt")["global_step"] == 2
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_twice_aborts(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    monkeypatch.setattr(toy.system, "training_step", training_step)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(toy(), "train")
    assert signal.getsignal(signal.SIGINT) is before


def test_broken_run_keeps_checkpoint_and_traceback(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_train_batch_end(self: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.global_step == 2:
            raise ZeroDivisionError("by accident")

    monkeypatch.setattr(toy.system, "on_train_batch_end", on_train_batch_end)
    with pytest.raises(RunFailed, match="by accident"):
        run(toy(), "train")
    assert load_checkpoint(tmp_path / "run" / "ckpts" / "last.ckpt")["global_step"] == 2
    assert "ZeroDivisionError: by accident" in (tmp_path / "run" / "error.log").read_text()


def test_full_disk_is_named(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def finish(self: Any, folder: Path) -> list[Path]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(toy.system, "finish", finish)
    with pytest.raises(RunFailed, match="disk is full") as caught:
        run(toy(), "train")
    assert caught.value.exit_code == 1


def test_full_disk_is_named_whoever_writes(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size of files is as good as a full disk; torch reports it in words of its own."""

    def finish(self: Any, folder: Path) -> list[Path]:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            return [self.save_state_dict("large.pt", {"x": torch.ones(100_000)})]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(toy.system, "finish", finish)
    with pytest.raises(RunFailed, match="disk is full"):
        run(toy(), "train")


def test_full_disk_is_named_when_only_a_pipe_broke(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def finish(self: Any, folder: Path) -> list[Path]:
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(toy.system, "finish", finish)
    with pytest.raises(RunFailed, match="disk is full"):
        run(toy(), "train")


def test_mistake_found_in_the_first_step_leaves_nothing(toy: Any, tmp_path: Path) -> None:
    config = toy(f"run_dir={tmp_path / 'a' / 'b'}")
    config.system["loss"] = {}
    with pytest.raises(ConfigError, match=r"system\.loss\.lambda_fit"):
        run(config, "train")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "error", "text"),
    [
        ("trainer.max_step=3", UnknownKeyError, "trainer.max_steps"),
        ("trainer.logger=true", ConfigError, "training.loggers"),
        ("training.checkpoint_evry=3", UnknownKeyError, "training.checkpoint_every"),
        ("training.finish=[exprt]", ConfigError, "test, export"),
        ("training.checkpoint_every=often", ConfigError, "a whole number"),
        ("system.optimizer.name=Adm", UserError, "Adam"),
        ("system.optimizer.params.iner.lr=0.1", ConfigError, "near: inner"),
        ("system.optimizer.args.rl=0.1", ConfigError, "rl"),
        ("stages=[{name: a},{name: b, trainer: {max_step: 1}}]", UnknownKeyError, "trainer.max_steps"),
        ("stages=[{name: a},{name: b, training: {finish: [exprt]}}]", ConfigError, "in stage 1 (b)"),
        ("checkpoint.save_topk=1", ConfigError, "save_topk"),
        ("checkpoint.save_top_k=-7", ConfigError, "save_top_k"),
        ("trainer.max_steps=-5", ConfigError, "max_steps"),
        ("trainer.max_steps=many", ConfigError, "a whole number"),
        ("trainer.log_every_n_steps=often", ConfigError, "a whole number or null"),
        ("trainer.gradient_clip_val=[1.0]", ConfigError, "trainer.gradient_clip_val"),
        ("data_type=''", ConfigError, "data_type"),
    ],
)
def test_mistakes_in_the_recipe(toy: Any, tmp_path: Path, override: str, error: type, text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        run(toy(override), "train")
    assert not (tmp_path / "run").exists()


def test_folder_in_use_is_refused_and_overwrite_replaces_the_run(toy: Any, tmp_path: Path) -> None:
    run(toy("training.finish=[]"), "train")
    (tmp_path / "run" / "mine.txt").write_text("keep")
    (tmp_path / "run" / "save").mkdir(exist_ok=True)
    (tmp_path / "run" / "save" / "old.png").write_text("old")
    with pytest.raises(UserError, match="not empty"):
        run(toy(), "train")
    run(toy(), "train", overwrite=True)
    assert (tmp_path / "run" / "mine.txt").read_text() == "keep"
    assert not (tmp_path / "run" / "save" / "old.png").exists()


def test_mistake_in_an_empty_folder_leaves_it_empty(toy: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    config = toy()
    config.system["loss"] = {}
    with pytest.raises(ConfigError):
        run(config, "train")
    assert list(tmp_path.rglob("*")) == [tmp_path / "run"]


@pytest.mark.parametrize("mode", ["train", "export"])
@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda state: {"weights": state}, "no state_dict"),
        (
            lambda state: {"state_dict": state | {"inner.weight": torch.ones(3)}},
            r"inner\.weight: \(3,\), and \(2,\)",
        ),
        (lambda state: {"state_dict": {}}, r"inner\.weight: missing"),
    ],
    ids=["other", "shape", "missing"],
)
def test_weights_of_something_else_are_refused(
    toy: Any, tmp_path: Path, mode: Any, spoil: Any, text: str
) -> None:
    run(toy("training.finish=[]"), "train")
    other = tmp_path / "run" / "ckpts" / "other.ckpt"
    torch.save(spoil(weights(tmp_path / "run")), other)
    before = sorted((tmp_path / "run").rglob("*"))
    with pytest.raises(UserError, match=text) as caught:
        run(toy(), mode, resume=other)
    assert len(str(caught.value).splitlines()) <= 9 and sorted((tmp_path / "run").rglob("*")) == before


def test_a_run_is_not_replaced_by_resuming_another(toy: Any, tmp_path: Path) -> None:
    run(toy("training.finish=[]"), "train")
    other = tmp_path / "other.ckpt"
    other.write_bytes((tmp_path / "run" / "ckpts" / "last.ckpt").read_bytes())
    with pytest.raises(UserError, match="not empty"):
        run(toy(), "export", resume=other)


def test_damaged_checkpoint_is_the_users_to_know(toy: Any, tmp_path: Path) -> None:
    (tmp_path / "cut.ckpt").write_bytes(b"PK not a checkpoint")
    with pytest.raises(UserError, match="damaged"):
        run(toy(), "train", resume=tmp_path / "cut.ckpt")
    assert not (tmp_path / "run").exists()


def test_missing_checkpoint_is_named(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"gone\.ckpt"):
        run(toy(), "train", resume=tmp_path / "gone.ckpt")


def test_listeners_hear_the_phases_and_the_last_step(toy: Any) -> None:
    events: list[Any] = []
    run(toy(), "train", listeners=[events.append])
    phases = list(dict.fromkeys(event.phase for event in events))
    assert phases == ["loading", "compiling", "optimising", "rendering", "exporting"]
    assert max(event.step for event in events if event.phase == "optimising") == 4


def test_weights_of_which_none_is_known_are_refused(toy: Any, tmp_path: Path) -> None:
    torch.save({"state_dict": {"geometry.weight": torch.ones(2)}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"inner\.weight: missing"):
        toy.system({"weights": str(tmp_path / "other.ckpt")})


def test_keys_of_the_trainer_without_effect_say_so(toy: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="maquette"):
        run(toy("trainer.enable_progress_bar=true", "training.finish=[]"), "train")
    assert "trainer.enable_progress_bar has no effect" in caplog.text


def test_weights_are_taken_except_ignored_modules(toy: Any, tmp_path: Path, calls: list[str]) -> None:
    run(toy("training.finish=[]"), "train")
    trained = weights(tmp_path / "run")
    path = tmp_path / "run" / "ckpts" / "last.ckpt"
    calls.clear()
    system = toy.system({"weights": str(path), "weights_ignore_modules": ["outer"]})
    assert torch.equal(system.inner.weight, trained["inner.weight"])
    assert torch.equal(system.outer.weight, torch.ones(2))
    assert calls == ["inner.update 4", "outer.update 4", "system.update 4"]

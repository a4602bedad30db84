"""What a run tells Weights & Biases offline is read back from the file that `wandb sync` would send."""

import json
import shutil
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from maquette.core.errors import RunFailed, UserError
from maquette.training.config import training_config
from maquette.training.loggers import make_loggers
from maquette.training.loggers.media import show_video
from maquette.training.loggers.wandb import WeightsAndBiases
from maquette.training.run import run
from maquette.training.run_folder import RunFolder

wandb = pytest.importorskip("wandb")
wandb_internal_pb2 = pytest.importorskip("wandb.proto.wandb_internal_pb2")

BLOCK = 32768
"""Bytes of the blocks of a LevelDB log, by which the records of a `.wandb` file are framed."""


def records(path: Path) -> Iterator[Any]:
    """The messages of a `.wandb` file: ``:W&B``, magic, version, then chunks of checksum, length and kind."""
    content, at, message = path.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while at < len(content):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        at += 7 + length
        message += content[at - length : at]
        if kind in (1, 4):  # whole, or the last part of one
            yield wandb_internal_pb2.Record.FromString(message)
            message = b""


def history(path: Path) -> list[dict[str, Any]]:
    """What was logged, a mapping for each call."""
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in one.history.item}
        for one in records(path)
        if one.HasField("history")
    ]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a library could leave its traces: home and the present folder."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    monkeypatch.chdir(place)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(place))
    return place


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Whoever wants to reach the world comes here."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{door.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield door


def test_numbers_and_a_picture_are_read_back_from_a_run_and_its_resumption(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: Path, network: socket.socket
) -> None:
    picture = torch.randint(0, 256, (5, 7, 3), dtype=torch.uint8)

    def on_test_epoch_end(self: Any) -> None:
        self.save_rgb_image("view.png", picture / 255, name="view", step=self.true_global_step)

    monkeypatch.setattr(toy.system, "on_test_epoch_end", on_test_epoch_end, raising=False)
    words = ("training.loggers=[csv]", "system.loggers={wandb: {enable: true, project: mine}}", "name=toy")
    folder = tmp_path / "run"
    run(toy(*words), "train")
    run(toy(*words, "trainer.max_steps=6"), "train", resume=folder)

    first, second = sorted((folder / "wandb_logs" / "wandb").glob("offline-run-*/*.wandb"))
    assert first.name == second.name, "a run that is resumed is the same run"
    about = next(one.run for one in records(first) if one.HasField("run"))
    assert (about.project, about.display_name) == ("mine", "toy")
    assert [one.exit.exit_code for one in records(first) if one.HasField("exit")] == [0]

    for path, steps in ((first, [0, 1, 2, 3]), (second, [4, 5])):
        logged = history(path)
        losses = [one for one in logged if "train/loss" in one]
        assert [one["trainer/global_step"] for one in losses] == steps
        weights = [one["train_params/lambda_fit"] for one in logged if "train_params/lambda_fit" in one]
        assert weights == [1 + 0.25 * min(step, 4) for step in steps]
        (shown,) = [one["view/filenames"][0] for one in logged if "view/filenames" in one]
        again = np.asarray(Image.open(path.parent / "files" / shown))
        assert np.array_equal(again, picture.numpy())

    assert list(elsewhere.rglob("*")) == []
    with pytest.raises(BlockingIOError):
        network.accept()


def test_a_video_is_logged_without_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logged: list[dict[str, Any]] = []

    class Kept(WeightsAndBiases):
        def __init__(self) -> None:
            pass

        def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
            logged.append(metrics)

    path = tmp_path / "turn.mp4"
    path.write_bytes(b"not looked at")
    show_video([Kept()], "turn", path, step=3, fps=30)
    assert [video._format for video in logged[0]["turn"]] == ["mp4"]
    assert "".join(capsys.readouterr()) == ""


def identities(folder: Path) -> list[str]:
    return [path.name.rpartition("-")[2] for path in (folder / "wandb_logs" / "wandb").glob("offline-run-*")]


@pytest.mark.parametrize("how", ["overwrite", "again"])
def test_a_new_beginning_is_another_run(toy: Any, tmp_path: Path, elsewhere: Path, how: str) -> None:
    words, folder = ("training.loggers=[wandb]", "training.finish=[]"), tmp_path / "run"
    run(toy(*words), "train")
    (before,) = identities(folder)
    if how == "overwrite":
        run(toy(*words), "train", overwrite=True)
    else:
        shutil.rmtree(folder / "ckpts")
        run(toy(*words), "train", resume=folder)
    (now,) = identities(folder)
    assert now != before


def test_what_a_system_asks_for_changes_no_settings(toy: Any, tmp_path: Path) -> None:
    cfg = toy("training.loggers=[csv]", "system.loggers={wandb: {enable: true}}")
    settings = training_config(cfg)
    with ExitStack() as ending:
        made = make_loggers(settings, RunFolder(tmp_path / "run"), cfg, ending)
    assert [type(one) for one in made] == [CSVLogger, WeightsAndBiases] and settings.loggers == ["csv"]


def test_other_processes_begin_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = WeightsAndBiases(tmp_path / "wandb_logs", project="mine", name="toy", offline=True)
    logger.experiment.log({"train/loss": 1.0})
    logger.log_metrics({"train/loss": 1.0}, 0)
    logger.end(None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_breaks_ends_there_too(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: Path
) -> None:
    original = toy.system.training_step

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        return {}["nothing"] if self.global_step == 2 else original(self, batch, batch_idx)

    monkeypatch.setattr(toy.system, "training_step", training_step)
    with pytest.raises(RunFailed):
        run(toy("training.loggers=[wandb]"), "train")
    (path,) = (tmp_path / "run" / "wandb_logs" / "wandb").glob("offline-run-*/*.wandb")
    assert [one.exit.exit_code for one in records(path) if one.HasField("exit")] == [1]
    assert len([one for one in history(path) if "train/loss" in one]) == 2
    assert wandb.run is None


def test_who_is_not_logged_in_is_told_how(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: Path, network: socket.socket
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(UserError, match=r"does not begin[\s\S]*wandb login"):
        run(toy("training.loggers=[wandb]", "training.logging.wandb.offline=false"), "train")
    assert not (tmp_path / "run").exists()

"""What a run writes into its logs is read back by the programs that show it."""

import csv
import io
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from maquette.core.errors import ConfigError, MissingBackendError
from maquette.io.video import write_video
from maquette.ops.mesh import Mesh
from maquette.training.loggers.tensorboard import BINS, TensorBoard, histogram
from maquette.training.observing import LoggingConfig
from maquette.training.run import run


def read(folder: Path) -> EventAccumulator:
    everything = dict.fromkeys(("scalars", "images", "histograms", "tensors"), 0)
    events = EventAccumulator(str(folder), size_guidance=everything)
    events.Reload()
    return events


@pytest.fixture
def board(tmp_path: Path) -> TensorBoard:
    return TensorBoard(tmp_path, name="tb_logs")


def saved(board: TensorBoard) -> EventAccumulator:
    board.experiment.flush()
    return read(Path(board.log_dir))


def test_a_run_leaves_scalars_rates_times_and_memory(toy: Any, tmp_path: Path) -> None:
    run(toy("training.loggers=[csv, tensorboard]", "training.finish=[]"), "train")
    events = read(tmp_path / "run" / "tb_logs" / "version_0")
    scalars = set(events.Tags()["scalars"])
    wanted = {
        "train/loss", "train/loss_fit", "train_params/lambda_fit", "lr-Adam", "speed/steps_per_second",
        "memory_gb/process", "time_ms/data", "time_ms/forward", "time_ms/backward", "time_ms/optimiser",
        "time_ms/update", "time_ms/callbacks", "time_ms/engine",
    }  # fmt: skip
    assert wanted <= scalars
    assert [one.step for one in events.Scalars("train/loss")] == [0, 1, 2, 3]
    assert [one.value for one in events.Scalars("train_params/lambda_fit")] == [1.0, 1.25, 1.5, 1.75]
    assert all(one.value > 0 for name in wanted - {"train_params/lambda_fit"} for one in events.Scalars(name))
    with (tmp_path / "run" / "csv_logs" / "version_0" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    logged = [one.value for one in events.Scalars("train/loss")]
    assert [float(row["train/loss"]) for row in rows] == pytest.approx(logged)


def test_each_group_of_parameters_has_its_rate(toy: Any, tmp_path: Path) -> None:
    groups = "system.optimizer.params={inner: {lr: 0.5}, outer.weight: {lr: 0.25}}"
    decay = "system.scheduler={name: StepLR, interval: step, args: {step_size: 2, gamma: 0.5}}"
    run(toy(groups, decay, "training.loggers=[tensorboard]", "training.finish=[]"), "train")
    events = read(tmp_path / "run" / "tb_logs" / "version_0")
    for name, rates in (("inner", [0.5, 0.5, 0.25, 0.25]), ("outer.weight", [0.25, 0.25, 0.125, 0.125])):
        assert [one.value for one in events.Scalars(f"lr-Adam/{name}")] == rates


def test_of_several_processes_the_first_one_writes(toy: Any, several: ModuleType, tmp_path: Path) -> None:
    words = ("trainer.devices=2", "training.loggers=[csv, tensorboard]", "training.finish=[]")
    assert several.in_processes(lambda: run(toy(*words), "train")) == [0, 0]
    (events,) = (tmp_path / "run" / "tb_logs").glob("*/events*")
    assert [one.step for one in read(events).Scalars("train/loss")] == [0, 1, 2, 3]
    (rows,) = (tmp_path / "run" / "csv_logs").glob("*/metrics.csv")
    with rows.open() as file:
        assert sum(bool(row["train/loss"]) for row in csv.DictReader(file)) == 4


def test_speed_is_that_of_steps_however_many_batches_make_one(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = toy.system.training_step

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        time.sleep(0.01)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(toy.system, "training_step", training_step)
    run(toy("training.loggers=[csv]", "training.finish=[]", "trainer.accumulate_grad_batches=3"), "train")
    with (tmp_path / "run" / "csv_logs" / "version_0" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["speed/steps_per_second"]]
    assert len(rows) == 3  # of four steps, without the first
    assert all(float(row["speed/steps_per_second"]) < 1 / 0.03 for row in rows)
    assert all(float(row["time_ms/forward"]) >= 30 for row in rows)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["step_seconds"]["forward"] >= 0.03


@pytest.mark.parametrize("batches", [1, 2])
def test_histograms_of_weights_gradients_and_activations(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    layers: list[Any] = []
    original = toy.system.configure

    def configure(self: Any) -> None:
        original(self)
        self.layer = torch.nn.Linear(2, 1)
        layers.append(self.layer)

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.set_loss("fit", self.layer(batch * self.inner.weight).square().mean())
        return {"loss": self.total_loss()}

    monkeypatch.setattr(toy.system, "configure", configure)
    monkeypatch.setattr(toy.system, "training_step", training_step)
    watch = ("training.logging.histograms=[weights, gradients, activations]", "training.finish=[]")
    more = ("training.logging.histograms_every=2", f"trainer.accumulate_grad_batches={batches}")
    run(toy("training.loggers=[tensorboard]", *more, *watch), "train")
    events = read(tmp_path / "run" / "tb_logs" / "version_0")
    found = set(events.Tags()["histograms"])
    assert {"weights/layer.weight", "gradients/layer.weight", "activations/layer"} <= found
    assert "gradients/outer.weight" not in found and "weights/outer.weight" in found
    sizes = {"weights/layer.weight": 2, "gradients/inner.weight": 2, "activations/layer": 1}
    for name, values in sizes.items():
        shown = events.Histograms(name)
        assert [one.step for one in shown] == [0, 2]
        assert {one.histogram_value.num for one in shown} == {values}
    assert not layers[0]._forward_hooks


def test_histogram_counts_what_numpy_counts() -> None:
    values = torch.linspace(-3, 5, 1001).square()
    facts = histogram(values)
    assert facts is not None
    counts, (low, high, total, squares, number, bad) = facts[:BINS], facts[BINS:]
    expected, _ = np.histogram(values.numpy(), bins=BINS)
    assert np.abs(np.array(counts) - expected).max() <= 1 and sum(counts) == number == 1001  # ties of edges
    assert (low, high, bad) == (values.min(), values.max(), 0)
    assert total == pytest.approx(float(values.double().sum()))
    assert squares == pytest.approx(float(values.double().square().sum()))


def test_a_histogram_is_read_back(board: TensorBoard) -> None:
    values = torch.linspace(-3, 5, 1001).square()
    board.log_histogram("weights/x", values, 7)
    (one,) = saved(board).Histograms("weights/x")
    shown = one.histogram_value
    assert (one.step, shown.num, shown.min, shown.max) == (7, 1001, values.min(), values.max())
    counts, edges = np.histogram(values.numpy(), bins=BINS)
    assert np.abs(np.array(shown.bucket) - counts).max() <= 1  # ties of edges
    assert shown.bucket_limit == pytest.approx(edges[1:].tolist())


@pytest.mark.parametrize(
    ("values", "number", "bad"),
    [([1.0, float("nan"), float("inf")], 1, 2), ([2.0, 2.0], 2, 0), ([float("nan")], 0, 1)],
)
def test_histogram_of_what_is_not_finite_or_all_the_same(
    board: TensorBoard, values: list[float], number: int, bad: int
) -> None:
    board.log_histogram("weights/x", torch.tensor(values), 3)
    events = saved(board)
    shown = events.Histograms("weights/x") if number else []
    assert sum(one.histogram_value.num for one in shown) == number
    assert ("weights/x/not_finite" in events.Tags()["scalars"]) == bool(bad)
    assert histogram(torch.zeros(0)) is None


def test_a_picture_is_read_back(board: TensorBoard) -> None:
    picture = torch.randint(0, 256, (5, 7, 3), dtype=torch.uint8)
    board.log_picture("validation_step", picture, 4)
    (shown,) = saved(board).Images("validation_step")
    again = np.asarray(Image.open(io.BytesIO(shown.encoded_image_string)))
    assert shown.step == 4 and np.array_equal(again, picture.numpy())


def test_a_video_moves_in_the_log(board: TensorBoard, tmp_path: Path) -> None:
    frames = torch.zeros(8, 16, 24, 3)
    frames[4:] = 1.0
    board.log_video("test", write_video(tmp_path / "turn.mp4", frames, fps=30), 9, fps=30)
    (shown,) = saved(board).Images("test")
    again = Image.open(io.BytesIO(shown.encoded_image_string))
    assert (shown.step, shown.width, shown.height) == (9, 24, 16)
    assert again.format == "GIF" and again.size == (24, 16) and again.info["loop"] == 0
    means = []
    for index in range(again.n_frames):
        again.seek(index)
        means.append(np.asarray(again.convert("L")).mean())
    assert means[0] < 10 and means[-1] > 245  # each second frame of 30 a second


def test_a_mesh_stands_upright_in_the_mesh_plugin(board: TensorBoard) -> None:
    mesh = Mesh(torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0]]), torch.tensor([[0, 1, 2]]))
    board.log_mesh("mesh", mesh.replace(vertex_colors=torch.eye(3)), 5)
    events = saved(board)
    tags = events.Tags()["tensors"]
    arrays = {tag.rpartition("_")[2]: _array(events, tag) for tag in tags if tag.startswith("mesh")}
    assert arrays["VERTEX"].tolist() == [[[0, 0, 1], [2, 0, 0], [0, 3, 0]]]  # (x, y, z) -> (y, z, x)
    assert arrays["FACE"].tolist() == [[[0, 1, 2]]]
    assert arrays["COLOR"].tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]


def _array(events: EventAccumulator, tag: str) -> Any:
    from tensorboard.util.tensor_util import make_ndarray

    return make_ndarray(events.Tensors(tag)[0].tensor_proto)


def test_wandb_that_is_not_installed_names_the_extra(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingBackendError, match=r"maquette\[wandb\]"):
        run(toy("training.loggers=[wandb]"), "train")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"histograms": ["biases"]}, "histograms"), ({"histograms_every": 0}, "histograms_every")],
)
def test_settings_of_the_logs_that_cannot_be(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LoggingConfig(**settings)
    assert caught.value.key == f"training.logging.{key}"


def test_what_a_system_saves_is_in_the_logs_too(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))

    def on_predict_epoch_end(self: Any) -> None:
        for frame in (0, 1):
            self.save_rgb_image(f"turn/{frame}.png", torch.full((8, 8, 3), float(frame)))
        self.save_img_sequence("turn", "turn", r"(\d+)\.png", fps=2, name="turn", step=4)
        self.save_rgb_image("view.png", torch.ones(8, 8, 3), name="view", step=4)
        self.save_mesh("it4-export/toy.glb", mesh)

    monkeypatch.setattr(toy.system, "on_predict_epoch_end", on_predict_epoch_end)
    logs = "training.loggers=[csv, tensorboard]"
    run(toy(logs), "train")
    tags = read(tmp_path / "run" / "tb_logs" / "version_0").Tags()
    assert {"turn", "view"} <= set(tags["images"]) and "toy_VERTEX" in tags["tensors"]
    off = ("training.logging.pictures=false", "training.logging.meshes=false", f"run_dir={tmp_path / 'off'}")
    run(toy(logs, *off), "train")
    tags = read(tmp_path / "off" / "tb_logs" / "version_0").Tags()
    assert tags["images"] == [] and "toy_VERTEX" not in tags["tensors"]

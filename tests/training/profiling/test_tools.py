"""Each instrument leaves one file that says what it should, and changes nothing."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.core.errors import CollapseError
from maquette.core.loading import load_checkpoint
from maquette.training.profiling.anomaly import anomaly_search
from maquette.training.profiling.memory_page import Allocation, alive_at_peak, memory_page
from maquette.training.profiling.sync_audit import SyncMode
from maquette.training.profiling.tools import Tools
from maquette.training.run import run


def test_profile_is_a_trace_for_viewers_and_a_table(toy: Any, tmp_path: Path) -> None:
    run(toy("training.finish=[]", "trainer.max_steps=8"), "train", tools=Tools(profile=True))
    folder = tmp_path / "run" / "profiling"
    assert sorted(path.name for path in folder.iterdir()) == ["profile.txt", "trace.json"]
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    names = [event["name"] for event in events if event.get("ph") == "X"]
    assert names.count("part: backward") == 4 and names.count("part: optimiser") >= 4
    assert "aten::mean" in names
    table = (folder / "profile.txt").read_text()
    assert "Self CPU" in table and "part: forward" in table


def test_the_profiler_says_nothing_on_the_screen() -> None:
    program = """
from maquette.core.log import set_library_verbosity
set_library_verbosity()
import torch
with torch.profiler.profile():
    torch.zeros(3)
"""
    plain = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=plain, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_run_shorter_than_the_recording_is_recorded_to_its_end(toy: Any, tmp_path: Path) -> None:
    run(toy("training.finish=[]", "trainer.max_steps=1"), "train", tools=Tools(profile=True))
    assert "aten::mean" in (tmp_path / "run" / "profiling" / "trace.json").read_text()


def test_memory_snapshot_is_a_page_with_the_largest_allocations(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = toy.system.training_step

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        large = torch.ones(3 * 2**18)  # 3 MiB
        return original(self, batch * large[:2], batch_idx)

    monkeypatch.setattr(toy.system, "training_step", training_step)
    run(toy("training.finish=[]"), "train", tools=Tools(memory_snapshot=True))
    assert [path.name for path in (tmp_path / "run" / "profiling").iterdir()] == ["memory.html"]
    page = (tmp_path / "run" / "profiling" / "memory.html").read_text()
    assert "<td>3.00</td><td>aten::empty" in page or "<td>3.00</td><td>aten::ones" in page
    assert "<polyline" in page


def test_what_was_alive_at_the_highest_point() -> None:
    taken = [(0, 1, 10), (1, 2, 30), (2, 1, -10), (3, 3, 25), (4, 2, -30), (5, 3, -25)]
    when, living = alive_at_peak([Allocation(time, address, size, 0) for time, address, size in taken])
    assert when == 3 and [one.address for one in living] == [2, 3]
    assert "No memory was taken" in memory_page([])


def test_anomalies_are_searched_in_every_step_and_written_down(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(toy("training.finish=[]"), "train", tools=Tools(detect_anomaly=True))
    path = tmp_path / "run" / "profiling" / "anomaly.txt"
    assert path.read_text() == "No derivative was found that is not a number.\n"

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.set_loss("fit", (self.inner.weight * 0.0).sqrt().sum() * 0.0)
        return {"loss": self.total_loss()}

    monkeypatch.setattr(toy.system, "training_step", training_step)
    with pytest.raises(CollapseError, match="derivative of SqrtBackward is not a number") as caught:
        run(toy(), "train", tools=Tools(detect_anomaly=True), overwrite=True)
    assert "test_tools.py" in caught.value.details[0]
    assert "Traceback of forward call" in path.read_text()
    assert not torch.is_anomaly_enabled()


def test_warnings_are_heard_while_anomalies_are_searched(tmp_path: Path) -> None:
    path = tmp_path / "anomaly.txt"
    with pytest.warns(UserWarning, match="look here"), anomaly_search(path):
        warnings.warn("look here", stacklevel=1)
    with (
        warnings.catch_warnings(record=True) as told,
        pytest.raises(CollapseError, match="SqrtBackward"),
        anomaly_search(path),
        torch.autograd.set_detect_anomaly(True),
    ):
        (torch.zeros(1, requires_grad=True).sqrt() * 0.0).sum().backward()
    assert not [one for one in told if "Error detected" in str(one.message)]
    assert "Traceback of forward call" in path.read_text()


def test_sync_audit_names_the_lines_that_read_back(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = toy.system.training_step

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        values = [float(one) for one in batch[0]]  # two reads a step
        assert len(values) == 2 and self.inner.weight[self.inner.weight > -9].numel() == 2
        return original(self, batch, batch_idx)

    monkeypatch.setattr(toy.system, "training_step", training_step)
    run(toy("training.finish=[]", "trainer.max_steps=20"), "train", tools=Tools(sync_audit=True))
    lines = (tmp_path / "run" / "profiling" / "sync.txt").read_text().splitlines()
    assert lines[0] == "10 steps audited; calls a step:"
    here = [line for line in lines if "test_tools.py" in line]
    for kind, number in (("number read", 2.0), ("size depends on values", 1.0)):
        assert sum(float(line.split()[0]) for line in here if kind in line) == number


def test_audit_counts_by_kind() -> None:
    with SyncMode() as mode:
        values = torch.arange(3.0)
        float(values.sum())
        values.nonzero()
        values.double()
        values[values > 1]
    kinds = {kind: number for (kind, _), number in mode.found.items()}
    assert [kinds.get(name) for name in ("number read", "type converted")] == [1, 1]
    assert sum(n for (kind, _), n in mode.found.items() if kind == "size depends on values") == 2


def test_instruments_observation_and_previews_do_not_change_a_bit(toy: Any, tmp_path: Path) -> None:
    everything = (
        "training.logging.histograms=[weights, gradients, activations]",
        "training.logging.histograms_every=1", "training.loggers=[csv, tensorboard]",
        "training.collapse.every=1", "training.growth.every=3",
        "training.checkpoint_every=1", "training.snapshot_code=true", "trainer.limit_val_batches=2",
        "trainer.val_check_interval=2", "trainer.check_val_every_n_epoch=null", "trainer.log_every_n_steps=1",
        "checkpoint.every_n_train_steps=2", "checkpoint.save_top_k=-1",
    )  # fmt: skip
    nothing = (
        "training.loggers=[]", "training.logging.timing=false", "training.collapse.enabled=false",
        "training.growth.enabled=false", "training.checkpoint_every=1000", "training.finish=[]",
    )  # fmt: skip
    on, off = tmp_path / "on", tmp_path / "off"
    tools = Tools(profile=True, memory_snapshot=True, detect_anomaly=True, sync_audit=True)
    run(toy(*everything, f"run_dir={on}", "trainer.max_steps=8"), "train", listeners=[print], tools=tools)
    run(toy(*nothing, f"run_dir={off}", "trainer.max_steps=8"), "train")
    first, second = (load_checkpoint(folder / "ckpts" / "last.ckpt") for folder in (on, off))
    assert all(
        torch.equal(first["state_dict"][name], second["state_dict"][name]) for name in first["state_dict"]
    )
    states = [one["optimizer_states"][0]["state"] for one in (first, second)]
    assert all(torch.equal(states[0][key]["exp_avg"], states[1][key]["exp_avg"]) for key in states[0])
    assert len(list((on / "profiling").iterdir())) == 5

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from maquette.core.progress import ProgressEvent
from maquette.training.overview import Overview
from maquette.training.run import run


def shown(cfg: Any) -> Overview:
    events: list[ProgressEvent] = []
    run(cfg, "train", listeners=[events.append])
    found = [event.overview for event in events if event.overview is not None]
    assert len(found) == 1 and isinstance(found[0], Overview)
    return found[0]


def test_overview_tells_what_is_about_to_be_trained(toy: Any, tmp_path: Path) -> None:
    found = shown(
        toy(
            "training.finish=[]", "training.freeze=[outer.weight]", "training.ema.enabled=true",
            "system.optimizer.params.inner.lr=0.25", "trainer.accumulate_grad_batches=2",
            "trainer.gradient_clip_val=0.5", "trainer.gradient_clip_algorithm=norm",
            "system.scheduler.name=ConstantLR", "system.scheduler.args.factor=1.0",
        )
    )  # fmt: skip
    rows = [(one.name, one.kind, one.total, one.trainable) for one in found.modules]
    assert rows == [("inner", "ToyPart", 2, 2), ("outer", "ToyPart", 4, 2), ("all", "ToySystem", 4, 2)]
    assert [(one.name, one.parameters, one.rate, one.weight_decay) for one in found.groups] == [
        ("inner", 2, 0.25, 0.0)
    ]
    assert found.facts["optimizer"] == "Adam" and found.facts["scheduler"] == "ConstantLR"
    assert found.facts["batches a step"] == "2" and found.facts["clipping"] == "0.5 by norm"
    weight = 8 / 2**20
    memory = {name: value / weight for name, value in found.memory.items() if name != "in use so far"}
    assert memory == {"weights": 2, "gradients": 1, "optimizer": 2, "average": 1, "total": 6}
    written = json.loads((tmp_path / "run" / "configs" / "overview.json").read_text())
    assert written["modules"][0] == {"name": "inner", "kind": "ToyPart", "total": 2, "trainable": 2}


@pytest.mark.parametrize(("amsgrad", "states"), [("false", 2), ("true", 3)])
def test_states_are_counted(toy: Any, amsgrad: str, states: int) -> None:
    optimizer = f"system.optimizer.args.amsgrad={amsgrad}"
    found = shown(toy("training.finish=[]", "trainer.max_steps=1", optimizer))
    assert found.memory["optimizer"] == states * found.memory["gradients"]


def test_without_listeners_it_is_logged(toy: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "maquette"):
        run(toy("training.finish=[]", "trainer.max_steps=1"), "train")
    assert "inner   ToyPart" in caplog.text and "optimizer: Adam" in caplog.text
    assert "MiB, and what a step needs" in caplog.text

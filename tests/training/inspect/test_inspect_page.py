"""What the page of the classifier says about looking into it, done as it is written there."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.data.toyworld.dataset import COLOR_NAMES, KIND_NAMES
from maquette.io.data import write_safetensors
from maquette.models.networks.toy_cnn import ToyCNN

PAGE = Path(__file__).parents[3] / "docs" / "engine" / "classifier.md"


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    torch.manual_seed(1)
    kept = ToyCNN(len(KIND_NAMES), len(COLOR_NAMES))
    write_safetensors(tmp_path / "classifier.safetensors", kept.state_dict())
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(code, found)
    assert len(found["report"].taken) == len(kept.state_dict()) and not found["report"].misfits
    assert {name: one.shape[2] for name, one in found["pictures"].items()} == {
        "features.2": 3,
        "features.5": 3,
    }
    assert found["logits"].kind.shape == (1, 3)
    torch.testing.assert_close(found["logits"].color, kept(found["images"]).color)

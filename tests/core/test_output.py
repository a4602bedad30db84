"""Outputs are dataclasses that read like mappings."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from maquette.core.output import MappingOutput


@dataclass(kw_only=True, eq=False)
class Output(MappingOutput):
    rgb: torch.Tensor
    depth: torch.Tensor | None = None
    width: int = 4


@pytest.fixture
def output():
    return Output(rgb=torch.zeros(2), extras={"mask": torch.ones(1), "nothing": None})


def test_fields_and_extras_are_entries_and_none_is_absent(output):
    assert output.keys() == ["rgb", "width", "mask"]
    assert output["rgb"] is output.rgb
    assert output["mask"] is output.extras["mask"]
    assert "depth" not in output and "nothing" not in output and "mask" in output
    assert len(output) == 3
    assert dict(output.items()).keys() == {"rgb", "width", "mask"}
    assert output.get("depth", 5) == 5
    for key in ("depth", "nothing", "unknown", "extras"):
        with pytest.raises(KeyError):
            output[key]


def test_it_spreads_into_arguments(output):
    def receive(rgb: Any, **rest: Any) -> Any:
        return rgb, sorted(rest)

    assert receive(**output) == (output.rgb, ["mask", "width"])
    assert {**output}["width"] == 4


def test_setting_and_updating_reach_fields_and_extras(output):
    output["depth"] = torch.ones(3)
    output.update({"width": 9}, new=1)
    assert output.depth is output["depth"]
    assert (output.width, output.extras["new"]) == (9, 1)


def test_to_moves_tensors_also_nested_ones(output):
    output.extras["inner"] = Output(rgb=torch.zeros(1))
    output.extras["table"] = {"a": torch.zeros(1)}
    moved = output.to(torch.float64)
    assert moved.rgb.dtype == moved["inner"].rgb.dtype == moved["table"]["a"].dtype == torch.float64
    assert output.rgb.dtype == output["inner"].rgb.dtype == torch.float32
    assert moved.width == 4

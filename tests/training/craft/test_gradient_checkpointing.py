from typing import Any

import pytest
import torch
from torch import nn

from maquette.core.errors import ConfigError
from maquette.training.craft.gradient_checkpointing import use_gradient_checkpointing


def test_modules_compute_the_same(assert_nothing_but_the_way_changes: Any) -> None:
    assert_nothing_but_the_way_changes(lambda net: use_gradient_checkpointing(net, ["body", "head"]))


def test_wrong_paths_are_refused(net: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"near: body") as caught:
        use_gradient_checkpointing(net, ["body", "bdy"])
    assert caught.value.key == "training.gradient_checkpointing[1]"


def test_checkpointing_runs_again_while_training_only(net: nn.Module) -> None:
    runs: list[int] = []
    net.body[0].register_forward_hook(lambda *unused: runs.append(1))
    use_gradient_checkpointing(net, ["body"])
    net(torch.randn(1, 3, 4, 4)).sum().backward()
    assert len(runs) == 2
    net.eval()(torch.randn(1, 3, 4, 4)).sum().backward()
    assert len(runs) == 3


def test_a_part_in_evaluation_mode_is_trained_through(
    net: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[int] = []
    net.body.eval()[0].register_forward_hook(lambda *unused: runs.append(1))
    use_gradient_checkpointing(net, ["body"])
    net(torch.randn(1, 3, 4, 4)).sum().backward()
    assert len(runs) == 2 and not caplog.records
    net.head.eval().gradient_checkpointing_enable = lambda **kwargs: None  # type: ignore[assignment]
    use_gradient_checkpointing(net, ["head"])
    assert "head is in evaluation mode" in caplog.text


def test_models_that_know_where_to_cut_do_it_themselves(net: nn.Module) -> None:
    calls: list[str] = []
    net.body.enable_gradient_checkpointing = lambda: calls.append("own")  # type: ignore[assignment]
    use_gradient_checkpointing(net, ["body"])
    assert calls == ["own"] and "forward" not in vars(net.body)

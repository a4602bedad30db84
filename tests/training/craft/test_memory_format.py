from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from maquette.core.errors import ConfigError
from maquette.training.craft.memory_format import use_channels_last


def test_modules_compute_the_same(assert_nothing_but_the_way_changes: Any) -> None:
    change = lambda net: use_channels_last(net, ["body"])
    assert_nothing_but_the_way_changes(change, dropout=0.0)  # torch draws in the order of the memory


def test_convolutions_and_their_pictures_are_channels_last(net: nn.Module) -> None:
    weights = deepcopy(net.state_dict())
    use_channels_last(net, ["body"])
    seen: list[bool] = []
    net.body[0].register_forward_pre_hook(
        lambda module, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    net(torch.randn(2, 3, 5, 7))
    assert seen == [True]
    assert net.body[0].weight.is_contiguous(memory_format=torch.channels_last)
    before = net.body[0].weight.stride()
    net.load_state_dict(weights)
    assert net.body[0].weight.stride() == before


def test_wrong_paths_are_refused(net: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"near: body") as caught:
        use_channels_last(net, ["body", "bdy"])
    assert caught.value.key == "training.channels_last[1]"


def test_convolutions_are_wanted(net: nn.Module) -> None:
    with pytest.raises(ConfigError, match="convolutions"):
        use_channels_last(net, ["head"])

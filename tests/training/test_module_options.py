"""Compiling, memory format and gradient checkpointing: the same values and gradients, the same names."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maquette.core.errors import ConfigError
from maquette.training.craft.compiling import compile_modules
from maquette.training.craft.gradient_checkpointing import use_gradient_checkpointing
from maquette.training.craft.memory_format import use_channels_last


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.calls = 0
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4, 2)
        self.body.register_forward_hook(self.count)

    def count(self, *unused: Any) -> None:
        self.calls += 1

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.body(pictures).mean((2, 3)))


def result(change: Callable[[nn.Module], Any], dropout: float) -> tuple[Tensor, dict[str, Tensor], Net]:
    net, pictures = Net(), torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(2))
    net.body[2].p = dropout
    names = list(net.state_dict())
    change(net)
    assert list(net.state_dict()) == names
    torch.manual_seed(3)
    out = net(pictures)
    out.square().sum().backward()
    return out.detach(), {name: one.grad for name, one in net.named_parameters()}, net


@pytest.mark.parametrize(
    ("change", "dropout"),
    [
        (lambda net: use_gradient_checkpointing(net, ["body", "head"]), 0.5),
        (lambda net: use_channels_last(net, ["body"]), 0.0),  # torch draws in the order of the memory
        (lambda net: compile_modules(net, ["body", "head"]), 0.5),
        (lambda net: (compile_modules(net, ["body"]), use_gradient_checkpointing(net, ["body"])), 0.5),
    ],
    ids=["checkpointed", "channels_last", "compiled", "compiled and checkpointed"],
)
def test_nothing_but_the_way_changes(change: Any, dropout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    out, gradients, _ = result(lambda net: None, dropout)
    other, others, net = result(change, dropout)
    torch.testing.assert_close(other, out, rtol=1e-5, atol=1e-6)
    for name, value in gradients.items():
        torch.testing.assert_close(others[name], value, rtol=1e-5, atol=1e-6)
    assert net.calls == 1  # hooks stay outside, and see each call once


def test_convolutions_and_their_pictures_are_channels_last() -> None:
    net = Net()
    use_channels_last(net, ["body"])
    seen: list[bool] = []
    net.body[0].register_forward_pre_hook(
        lambda module, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    net(torch.randn(2, 3, 5, 7))
    assert seen == [True]
    assert net.body[0].weight.is_contiguous(memory_format=torch.channels_last)
    before = net.body[0].weight.stride()
    net.load_state_dict(Net().state_dict())
    assert net.body[0].weight.stride() == before


def test_checkpointing_runs_again_while_training_only() -> None:
    net = Net()
    runs: list[int] = []
    net.body[0].register_forward_hook(lambda *unused: runs.append(1))
    use_gradient_checkpointing(net, ["body"])
    net(torch.randn(1, 3, 4, 4)).sum().backward()
    assert len(runs) == 2
    net.eval()(torch.randn(1, 3, 4, 4)).sum().backward()
    assert len(runs) == 3


def test_a_part_in_evaluation_mode_is_trained_through(caplog: pytest.LogCaptureFixture) -> None:
    net = Net()
    runs: list[int] = []
    net.body.eval()[0].register_forward_hook(lambda *unused: runs.append(1))
    use_gradient_checkpointing(net, ["body"])
    net(torch.randn(1, 3, 4, 4)).sum().backward()
    assert len(runs) == 2 and not caplog.records
    net.head.eval().gradient_checkpointing_enable = lambda **kwargs: None  # type: ignore[assignment]
    use_gradient_checkpointing(net, ["head"])
    assert "head is in evaluation mode" in caplog.text


def test_models_that_know_where_to_cut_do_it_themselves() -> None:
    net = Net()
    calls: list[str] = []
    net.body.enable_gradient_checkpointing = lambda: calls.append("own")  # type: ignore[assignment]
    use_gradient_checkpointing(net, ["body"])
    assert calls == ["own"] and "forward" not in vars(net.body)


@pytest.mark.parametrize("use", [compile_modules, use_channels_last, use_gradient_checkpointing])
def test_wrong_paths_are_refused(use: Any) -> None:
    with pytest.raises(ConfigError, match=r"near: body") as caught:
        use(Net(), ["body", "bdy"])
    assert caught.value.key.endswith("[1]")


def test_channels_last_wants_convolutions() -> None:
    with pytest.raises(ConfigError, match="convolutions"):
        use_channels_last(Net(), ["head"])


def test_what_cannot_be_compiled_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    net = Net()
    compile_modules(net, ["head"])
    with pytest.raises(ConfigError, match=r"(?s)training.compile.*'head'.*no compiler here"):
        net(torch.randn(1, 3, 4, 4))


def test_errors_of_the_module_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    net = Net()
    compile_modules(net, ["head"])
    with pytest.raises(RuntimeError, match="shapes"):
        net.head(torch.randn(1, 3))

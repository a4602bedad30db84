import functools
from typing import Any

import pytest
import torch
from torch import nn

from maquette.core.errors import ConfigError
from maquette.training.craft.compiling import compile_modules
from maquette.training.craft.gradient_checkpointing import use_gradient_checkpointing


@pytest.fixture
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules are traced and run as they are: no C++ compiler is needed."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


def test_compiled_modules_compute_the_same(_eager: None, assert_nothing_but_the_way_changes: Any) -> None:
    assert_nothing_but_the_way_changes(lambda net: compile_modules(net, ["body", "head"]))


def test_compiled_and_checkpointed_modules_compute_the_same(
    _eager: None, assert_nothing_but_the_way_changes: Any
) -> None:
    def change(net: nn.Module) -> None:
        compile_modules(net, ["body"])
        use_gradient_checkpointing(net, ["body"])

    assert_nothing_but_the_way_changes(change)


def test_wrong_paths_are_refused(net: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"near: body") as caught:
        compile_modules(net, ["body", "bdy"])
    assert caught.value.key == "training.compile[1]"


def test_what_cannot_be_compiled_is_explained(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    compile_modules(net, ["head"])
    with pytest.raises(ConfigError, match=r"(?s)training.compile.*'head'.*no compiler here"):
        net(torch.randn(1, 3, 4, 4))


def test_errors_of_the_module_stay_what_they_are(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    compile_modules(net, ["head"])
    with pytest.raises(RuntimeError, match="shapes"):
        net.head(torch.randn(1, 3))

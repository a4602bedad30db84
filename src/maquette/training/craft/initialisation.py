"""How weights begin, by pattern; each is drawn by its name, so that no other draw moves it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maquette.core.errors import ConfigError
from maquette.core.random import named_generator
from maquette.training.craft.patterns import matching
from maquette.training.craft.rules import InitRule

_OF_MATRICES: Mapping[str, Callable[..., Any]] = {
    "kaiming_uniform": nn.init.kaiming_uniform_,
    "kaiming_normal": nn.init.kaiming_normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "orthogonal": nn.init.orthogonal_,
}
"""Schemes that need the number of inputs and outputs of a weight; a one-dimensional weight has none."""

_RANDOM: Mapping[str, Callable[..., Any]] = {
    "normal": nn.init.normal_,
    "trunc_normal": nn.init.trunc_normal_,
    "uniform": nn.init.uniform_,
}
_FIXED: Mapping[str, Callable[..., Any]] = {
    "zeros": nn.init.zeros_,
    "ones": nn.init.ones_,
    "constant": nn.init.constant_,
}


@torch.no_grad()
def initialise(
    model: nn.Module, rules: Sequence[InitRule], seed: int, keep: Collection[str] = ()
) -> list[str]:
    """Draw the parameters that the rules name; names of those drawn.

    Args:
        model: whose parameters.
        rules: applied in their order. A scheme of matrices leaves biases and one-dimensional weights as they
            are.
        seed: seed of the run; a draw also depends on the parameter's qualified name, and on nothing else.
        keep: qualified names that have got their values from elsewhere.

    Raises:
        ConfigError: a pattern matches nothing that the scheme can fill, or an argument does not exist.
    """
    drawn = []
    for i, rule in enumerate(rules):
        key = f"training.init[{i}]"
        found = matching(model, rule.pattern, f"{key}.pattern")
        if rule.scheme in _OF_MATRICES:
            found = {name: one for name, one in found.items() if one.ndim >= 2}
        if not found:
            raise ConfigError(f"{key}.pattern", rule.pattern, f"weights of two dimensions, for {rule.scheme}")
        for name, parameter in found.items():
            if name not in keep:
                parameter.copy_(_values(key, rule, parameter, seed, name))
                drawn.append(name)
    return drawn


def _values(key: str, rule: InitRule, parameter: Tensor, seed: int, name: str) -> Tensor:
    """New values for one parameter, float32 on the host: the same on every device."""
    values = torch.empty(parameter.shape)
    args = dict(rule.args)
    if rule.scheme in _FIXED:
        fill = _FIXED[rule.scheme]
    else:
        fill = {**_OF_MATRICES, **_RANDOM}[rule.scheme]
        args["generator"] = named_generator(seed, name)
    try:
        fill(values, **args)
    except (TypeError, ValueError, RuntimeError) as err:
        raise ConfigError(f"{key}.args", rule.args, f"arguments that {rule.scheme} accepts ({err})") from err
    return values

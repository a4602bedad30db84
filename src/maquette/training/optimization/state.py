"""An optimizer's state when it comes from a checkpoint, perhaps of another machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from maquette.core.errors import UserError

WAYS = ("capturable", "fused", "foreach", "differentiable")
"""Options of a group that say how a step is computed, and not what it is: they belong to the machine."""


def keep_to_this_machine(optimizer: Optimizer) -> None:
    """Have the optimizer compute as it was configured here after it has loaded a state.

    A state names the options it was computed with, among them ``capturable`` and ``fused``, which only work
    where they were chosen, and it keeps its step counters where these want them. Afterwards both are as this
    run was told, whatever run the state is from.
    """
    ways = [{way: group[way] for way in WAYS if way in group} for group in optimizer.param_groups]
    optimizer.register_load_state_dict_pre_hook(_check_groups)
    optimizer.register_load_state_dict_post_hook(lambda loaded: _restore(loaded, ways))


def _check_groups(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    stored = [len(group["params"]) for group in state["param_groups"]]
    own = [len(group["params"]) for group in optimizer.param_groups]
    if stored != own:
        raise UserError(
            "The optimizer of the checkpoint has other parameter groups than this recipe.",
            [f"parameters in each group of the checkpoint: {stored}", f"here: {own}"],
            "use the system.optimizer of the run, or begin anew from its weights with system.weights",
        )


def _restore(optimizer: Optimizer, ways: list[dict[str, Any]]) -> None:
    for group, own in zip(optimizer.param_groups, ways, strict=True):
        group.update(own)
        on_device = bool(group.get("capturable") or group.get("fused"))
        for parameter in group["params"]:
            _place_counter(optimizer.state.get(parameter, {}), parameter if on_device else None)


def _place_counter(state: dict[str, Any], like: Tensor | None) -> None:
    """The step counter beside the parameter, or on the host where the step is launched from there."""
    step = state.get("step")
    if isinstance(step, Tensor):
        state["step"] = step.to(device="cpu" if like is None else like.device, dtype=torch.float32)

"""Networks that are kept in the CPU's memory and go to the GPU only to compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import cpu_offload
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from torch import nn

from maquette.core.device import release_memory


def offload(networks: Mapping[str, nn.Module], kind: str, device: torch.device) -> Callable[[], None]:
    """Keep `networks` on the CPU, and compute on `device`; gives the function that undoes it.

    A graph that runs through an offloaded network holds weights that are gone when it is run backward:
    whoever needs a gradient computes the forward pass again (`torch.utils.checkpoint`, not reentrant).

    Args:
        networks: those of which one is in use at a time.
        kind: `model`, one network at a time is on the device, or `sequential`, one layer.
        device: where they compute. It is left to the caller that this is not the CPU.
    """
    modules = [module for network in networks.values() for module in network.modules()]
    changed = {module for module in modules if "forward" in vars(module)}
    for network in networks.values():
        network.to("cpu")
        if kind == "sequential":
            cpu_offload(network, device)
        else:
            add_hook_to_module(network, _OneAtATime(tuple(networks.values()), device))

    def undo() -> None:
        for network in networks.values():
            remove_hook_from_module(network, recurse=True)
            network.to(device)
        for module in set(modules) - changed:
            vars(module).pop("forward", None)  # accelerate leaves the method as an attribute

    return undo


class _OneAtATime(ModelHook):  # type: ignore[misc]
    """Before a network computes, the others leave the device."""

    def __init__(self, networks: tuple[nn.Module, ...], device: torch.device) -> None:
        self.networks = networks
        self.device = device

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Bring `module` to the device."""
        if next(module.parameters()).device != self.device:
            for other in self.networks:
                if other is not module:
                    other.to("cpu")
            release_memory()
            module.to(self.device)
        return args, kwargs

"""Weights, and what modules keep beside them, that nothing can be computed from any more."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from maquette.core.errors import CollapseError

Named = tuple[str, Tensor]


def check_weights(trainer: Trainer, model: LightningModule, known: Collection[str] = ()) -> None:
    """Look at what the next step is computed from; the loss need not show that it is spoilt, since a renderer
    that skips what is empty skips what is not a number. It reads one number from the device.

    Args:
        trainer: tells the step, the precision, and the learning rates.
        model: its parameters that learn, and its buffers.
        known: names of buffers that hold NaN on purpose (:func:`nan_buffers` before the first step).

    Raises:
        CollapseError: a parameter is not finite, or so large that its square is not; or a buffer has become
            NaN.
    """
    if math.isfinite(float(_summary(model))):
        return
    step = trainer.global_step
    spoilt = next(_spoilt_parameters(model), None)
    if spoilt is not None:
        name, value = spoilt
        cause = f"after step {step} the weights of {_told(model, name)} are {_state(value)}"
        raise CollapseError(cause, _facts(trainer, spoilt), _hint(trainer))
    name = next((one for one in nan_buffers(model) if one not in known), None)
    largest = max(_trained(model), key=lambda one: float(one[1].abs().max()), default=None)
    if name is not None:
        cause = f"after step {step} {_told(model, name)} holds NaN"
        raise CollapseError(cause, _facts(trainer, largest), _hint(trainer))


def nan_buffers(model: nn.Module) -> list[str]:
    """Names of the buffers with a value that is not a number."""
    return [name for name, one in _kept(model) if bool(one.isnan().any())]


@torch.no_grad()
def _summary(model: nn.Module) -> Tensor:
    """A number that is finite where everything is: the norm of the weights, and sums, which are cheap."""
    total = torch.nn.utils.get_total_norm([one for _, one in _trained(model)])
    sums = [one.sum().to(total) for _, one in _kept(model)]
    return total.where(~torch.stack(sums).isnan().any(), math.nan) if sums else total


def _trained(model: nn.Module) -> Iterator[Named]:
    named = model.named_parameters()
    return ((name, one.detach()) for name, one in named if one.requires_grad and one.numel())


def _kept(model: nn.Module) -> Iterator[Named]:
    return ((name, one) for name, one in model.named_buffers() if one.is_floating_point())


def _spoilt_parameters(model: nn.Module) -> Iterator[Named]:
    return (one for one in _trained(model) if not math.isfinite(float(torch.linalg.vector_norm(one[1]))))


def _told(model: nn.Module, name: str) -> str:
    owner = model.get_submodule(name.rpartition(".")[0])
    return f"{name} ({type(owner).__name__})"


def _state(value: Tensor) -> str:
    return "too large to compute with" if bool(value.isfinite().all()) else "not finite"


def _facts(trainer: Trainer, weight: Named | None) -> list[str]:
    """The size of a weight, and what usually makes weights too large."""
    facts = [f"trainer.precision: {trainer.precision}"]
    if weight is None:
        return facts
    name, value = weight
    rate = _rate(trainer.optimizers, name, trainer.lightning_module)
    sizes = [f"largest value of {name}: {float(value.abs().max()):.3g}"]
    return [*sizes, *([] if rate is None else [f"its learning rate: {rate:.3g}"]), *facts]


def _rate(optimizers: Iterable[Optimizer], name: str, model: nn.Module) -> float | None:
    parameter = model.get_parameter(name)
    groups = [group for one in optimizers for group in one.param_groups]
    return next(
        (float(group["lr"]) for group in groups if any(one is parameter for one in group["params"])), None
    )


def _hint(trainer: Trainer) -> str:
    lower = "lower the learning rate (system.optimizer.args.lr)"
    return f"use trainer.precision=32, or {lower}" if "16" in str(trainer.precision) else lower

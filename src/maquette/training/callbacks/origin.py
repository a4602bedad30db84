"""Which module made a NaN or an infinity: the step is repeated, and the output of every module looked at."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

SHOWN = 4
"""Names that an error lists."""
CALL = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>\S+)')
FUNCTION = re.compile(r"Function '(\w+)' returned nan")

Origin = tuple[str, list[str]]
"""What completes the sentence "the loss is nan at step 7", and further facts."""


def forward_origin(system: LightningModule, batch: Any, batch_idx: int) -> Origin:
    """Where a loss that is not finite comes from, found by repeating the step with a hook on each module."""
    spoilt = not_finite_parameters(system)
    found: list[tuple[str, nn.Module, bool]] = []
    terms, failed = _repeat(system, batch, batch_idx, found)
    details = [f"{name} = {value:.4g}" for name, value in terms.items()] + failed
    if spoilt:
        return f": the weights are not finite ({_listed(spoilt)})", [
            "a step before had a gradient that was not finite",
            *details,
        ]
    if not found:
        return "", details
    name, module, clean = found[0]
    source = "from finite input" if clean else "its input was not finite either"
    return f": it arose in {name} ({type(module).__name__}), {source}", details


def backward_origin(system: LightningModule, batch: Any, batch_idx: int) -> Origin:
    """Where a gradient that is not finite comes from: the parameters that have it, and, by repeating the step
    with autograd's own search, the function whose derivative it was, and the line that called it.
    """
    names = [
        name
        for name, one in system.named_parameters()
        if one.grad is not None and not bool(one.grad.isfinite().all())
    ]
    details = [f"in {_listed(names)}"]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            with torch.autograd.set_detect_anomaly(True), _silent(system):
                with _precision(system):
                    loss = loss_of(system.training_step(batch, batch_idx))
                loss.backward()
        except Exception as err:  # noqa: BLE001 (an examination of what is broken anyway)
            function = FUNCTION.search(str(err))
            if function is None:
                return "", [*details, _not_repeated(err)]
            place = called_from([str(one.message) for one in told])
            called = f", called at {place}" if place else ""
            return f": it arose in the derivative of {function[1].removesuffix('0')}{called}", details
    return "", details


def not_finite_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters with a value that is infinite or no number."""
    return [name for name, one in model.named_parameters() if not bool(one.isfinite().all())]


def loss_of(outputs: Any) -> Tensor:
    """The loss in what a training step returns."""
    loss: Tensor = outputs["loss"] if isinstance(outputs, Mapping) else outputs
    return loss


def called_from(messages: list[str]) -> str | None:
    """The innermost line, outside of torch, of the forward pass that autograd's warning shows."""
    calls = [
        match for text in messages if "Traceback of forward call" in text for match in CALL.finditer(text)
    ]
    own = [one for one in calls if "site-packages" not in one["file"]]
    return f"{own[-1]['file']}:{own[-1]['line']} in {own[-1]['name']}" if own else None


def _not_repeated(err: Exception) -> str:
    return f"the step could not be repeated: {type(err).__name__}: {err}".removesuffix(": ")


def _precision(system: LightningModule) -> AbstractContextManager[Any]:
    """What the Trainer surrounds a training step with."""
    trainer = system._trainer
    return nullcontext() if trainer is None else trainer.precision_plugin.train_step_context()


def _repeat(
    system: LightningModule, batch: Any, batch_idx: int, found: list[tuple[str, nn.Module, bool]]
) -> tuple[dict[str, float], list[str]]:
    """Fills ``found`` with the modules whose output is not finite, innermost first; the terms of the loss."""

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, kwargs: Any, output: Any) -> None:
            if not is_finite(output):
                found.append((name, module, is_finite([inputs, kwargs])))

        return hook

    named = [(name, one) for name, one in system.named_modules() if name]
    handles = [one.register_forward_hook(look(name), with_kwargs=True) for name, one in named]
    failed = []
    try:
        with _silent(system) as logged, torch.enable_grad(), _precision(system):
            system.training_step(batch, batch_idx)
    except Exception as err:  # noqa: BLE001 (an examination of what is broken anyway)
        failed = [_not_repeated(err)]
    finally:
        for handle in handles:
            handle.remove()
    return {name: float(value) for name, value in logged.items() if name.startswith("train/loss")}, failed


@contextmanager
def _silent(system: LightningModule) -> Iterator[dict[str, Any]]:
    """Keep what is logged from the logs; it is in the mapping."""
    logged: dict[str, Any] = {}
    object.__setattr__(system, "log", lambda name, value, *args, **kwargs: logged.update({name: value}))
    try:
        yield logged
    finally:
        object.__delattr__(system, "log")


def is_finite(value: Any) -> bool:
    """Whether every floating point tensor in a tree of sequences and mappings is finite."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    if isinstance(value, Mapping) or hasattr(value, "items"):
        return all(is_finite(one) for _, one in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_finite, value))
    return True


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

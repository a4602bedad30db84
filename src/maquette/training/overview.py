"""What is about to be trained, as data: modules, parameter groups, device, precision, memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from maquette.core.device import current_device, peak_memory
from maquette.core.log import get_logger
from maquette.core.progress import ProgressEvent, ProgressListener
from maquette.io.data import write_json
from maquette.training.callbacks.ema import EMA
from maquette.training.inspect.counting import count_parameters
from maquette.training.optimization.state import WAYS
from maquette.training.run_folder import RunFolder

log = get_logger(__name__)

ASSUMED_STATES = 2.0
"""Numbers an optimizer keeps for each weight, where it cannot be tried out; those of Adam."""

TOTAL = "total"
USED = "in use so far"
"""The most that the process has used before its first step, models of other libraries included."""


@dataclass(frozen=True)
class ModuleRow:
    """One part of the model."""

    name: str
    """Its path."""
    kind: str
    """Its class."""
    total: int
    """Parameters."""
    trainable: int
    """Parameters that have gradients."""


@dataclass(frozen=True)
class GroupRow:
    """One group of the optimizer."""

    name: str
    """Its path, or its number."""
    parameters: int
    """Numbers in it."""
    rate: float
    """Learning rate at the first step."""
    weight_decay: float
    """Weight decay."""


@dataclass(frozen=True)
class Overview:
    """A run before its first step."""

    modules: Sequence[ModuleRow]
    """Parts of the model that have parameters, then all of it."""
    groups: Sequence[GroupRow]
    """Groups of the optimizer."""
    facts: dict[str, str]
    """Device, precision, optimizer, ... by name."""
    memory: dict[str, float]
    """Estimate in MiB of what stays for the whole run; what a step needs for itself comes on top."""

    def lines(self) -> list[str]:
        """The table as lines of text."""
        rows = [("module", "", "parameters", "trained")]
        rows += [(one.name, one.kind, f"{one.total:,}", f"{one.trainable:,}") for one in self.modules]
        rows += [("group", "weight decay", "parameters", "rate")]
        rows += [(g.name, f"{g.weight_decay:g}", f"{g.parameters:,}", f"{g.rate:g}") for g in self.groups]
        wide = [max(len(row[i]) for row in rows) for i in range(4)]
        table = [f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:>{wide[2]}}  {d:>{wide[3]}}" for a, b, c, d in rows]
        facts = [f"{name}: {value}" for name, value in self.facts.items()]
        return [*table, ", ".join(facts), self.memory_line()]

    def memory_line(self) -> str:
        """The estimate in one line."""
        parts = [f"{name} {value:.1f}" for name, value in self.memory.items() if name not in (TOTAL, USED)]
        used = f"{self.memory[USED]:.0f} MiB are in use"
        return f"memory: {' + '.join(parts)} = {self.memory[TOTAL]:.1f} MiB, and what a step needs; {used}"


def overview(trainer: Trainer, system: LightningModule) -> Overview:
    """The overview of a run whose optimizers are made."""
    optimizers = list(trainer.optimizers)
    return Overview(
        modules=list(_modules(system)),
        groups=[row for one in optimizers for row in _groups(one)],
        facts=_facts(trainer, optimizers),
        memory=_memory(trainer, system, optimizers),
    )


class ShowOverview(Callback):
    """Tells the listeners what is about to be trained; without any it is logged. It is kept in
    ``configs/overview.json`` either way.
    """

    def __init__(self, listeners: Sequence[ProgressListener], folder: RunFolder) -> None:
        self.listeners = listeners
        self.folder = folder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, tell, write."""
        if not trainer.is_global_zero:
            return
        found = overview(trainer, pl_module)
        write_json(self.folder.root / "configs" / "overview.json", dataclasses.asdict(found))
        event = ProgressEvent(
            step=trainer.global_step, total=max(trainer.max_steps, 0), rate=0.0, eta=None, phase="loading",
            overview=found,
        )  # fmt: skip
        for listener in self.listeners:
            listener(event)
        for line in () if self.listeners else found.lines():
            log.info("%s", line)


def _modules(system: nn.Module) -> Iterator[ModuleRow]:
    for name, module in system.named_children():
        total, trainable = count_parameters(module)
        if total:
            yield ModuleRow(name, type(module).__name__, total, trainable)
    yield ModuleRow("all", type(system).__name__, *count_parameters(system))


def _groups(optimizer: Optimizer) -> Iterator[GroupRow]:
    for i, group in enumerate(optimizer.param_groups):
        count = sum(parameter.numel() for parameter in group["params"])
        rate, decay = float(group.get("lr", 0.0)), float(group.get("weight_decay", 0.0))
        yield GroupRow(str(group.get("name", i)), count, rate, decay)


def _facts(trainer: Trainer, optimizers: Sequence[Optimizer]) -> dict[str, str]:
    schedulers = [type(one.scheduler).__name__ for one in trainer.lr_scheduler_configs]
    clip = trainer.gradient_clip_val
    facts = {
        "device": str(current_device()),
        "processes": str(trainer.world_size) if trainer.world_size > 1 else "",
        "precision": str(trainer.precision),
        "optimizer": ", ".join(type(one).__name__ for one in optimizers),
        "scheduler": ", ".join(schedulers),
        "batches a step": str(trainer.accumulate_grad_batches) if trainer.accumulate_grad_batches > 1 else "",
        "clipping": f"{clip:g} by {_clipping(trainer)}" if clip else "",
    }
    return {name: value for name, value in facts.items() if value}


def _clipping(trainer: Trainer) -> str:
    """The algorithm in the recipe's words; the Trainer holds an enumeration."""
    algorithm = trainer.gradient_clip_algorithm
    return str(getattr(algorithm, "value", algorithm) or "norm")


def _memory(trainer: Trainer, system: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, float]:
    trained = [one for one in system.parameters() if one.requires_grad]
    gradients = _mebibytes(trained)
    averaged = any(isinstance(one, EMA) for one in trainer.callbacks)  # type: ignore[attr-defined]
    parts = {
        "weights": _mebibytes([*system.parameters(), *system.buffers()]),
        "gradients": gradients,
        "optimizer": sum(_states(one) * _mebibytes(_parameters(one)) for one in optimizers),
        "average": gradients if averaged else 0.0,
    }
    return {**parts, TOTAL: sum(parts.values()), USED: peak_memory() * 1024}


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _states(optimizer: Optimizer) -> float:
    """Numbers that the optimizer keeps for each weight, counted on a small weight of its own."""
    settings = {name: value for name, value in optimizer.defaults.items() if name not in WAYS}
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.zeros(2, 2)
    try:
        twin = type(optimizer)([weight], **settings)
        twin.step()
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError):
        return ASSUMED_STATES
    state = twin.state.get(weight, {}).values()
    return sum(one.numel() for one in state if isinstance(one, Tensor) and one.ndim) / weight.numel()


def _mebibytes(tensors: Sequence[Tensor]) -> float:
    return sum(one.numel() * one.element_size() for one in tensors) / 2**20

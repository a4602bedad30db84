"""Parameters that do not learn, for a while or for good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer

from maquette.training.craft.patterns import matching
from maquette.training.craft.rules import FreezeRule

KEY = "training.freeze"


def freeze_for_good(model: nn.Module, rules: Sequence[FreezeRule]) -> None:
    """Take what never learns out of the gradients, before optimizers are made.

    Raises:
        ConfigError: a pattern matches nothing.
    """
    for rule in rules:
        found = matching(model, rule.pattern, KEY)
        if rule.for_good:
            for parameter in found.values():
                parameter.requires_grad_(False)


class Freeze(Callback):
    """Freezes and thaws parameters when the step of a rule has come.

    The optimizer holds them all the time and skips those without a gradient, so that its state waits with
    them. What is frozen follows from the step alone: nothing has to be saved. Several processes have agreed
    on whose gradients they exchange before the first step; there, the gradients of what is frozen are
    computed, and dropped before they are clipped or used.
    """

    def __init__(self, rules: Sequence[FreezeRule]) -> None:
        self.rules = [rule for rule in rules if not rule.for_good]
        self._active: list[bool] | None = None
        self._learning: list[nn.Parameter] = []
        self._frozen: list[nn.Parameter] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what learns when nothing is frozen."""
        self._active = None
        self._learning = [one for one in self._all_named(pl_module) if one.requires_grad]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Freeze and thaw where this step begins or ends a rule."""
        active = [rule.holds_at(trainer.global_step) for rule in self.rules]
        if active == self._active:
            return
        self._active = active
        self._frozen = self._chosen(pl_module)
        frozen = {id(one) for one in self._frozen}
        for parameter in self._learning if trainer.world_size == 1 else ():
            parameter.requires_grad_(id(parameter) not in frozen)
        self._drop_gradients()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Drop what several processes have computed for what is frozen."""
        self._drop_gradients()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the model as it was."""
        for parameter in self._learning:
            parameter.requires_grad_(True)

    def _all_named(self, model: nn.Module) -> list[nn.Parameter]:
        found = [one for rule in self.rules for one in matching(model, rule.pattern, KEY).values()]
        return list({id(one): one for one in found}.values())

    def _chosen(self, model: nn.Module) -> list[nn.Parameter]:
        """The parameters that would learn and that a rule freezes now."""
        learning = {id(one) for one in self._learning}
        holding = [rule for rule, active in zip(self.rules, self._active or (), strict=True) if active]
        found = [one for rule in holding for one in matching(model, rule.pattern, KEY).values()]
        return [one for one in found if id(one) in learning]

    def _drop_gradients(self) -> None:
        for parameter in self._frozen:
            parameter.grad = None

"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from maquette.training.callbacks.step_callback import StepCallback


class WeightAverage:
    """The running average of a model's trainable parameters: ``a <- d a + (1 - d) w``.

    The decay is warmed up as ``min(decay, (1 + n) / (10 + n))`` after ``n`` updates, so that the first,
    random weights are forgotten quickly.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average = {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average one step towards the weights of ``model``."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in model.named_parameters():
            if name in self.average:
                self.average[name].lerp_(parameter.to(self.average[name].device), 1 - decay)
            elif parameter.requires_grad:  # it has learned since its thaw only
                self.average[name] = parameter.detach().clone()
        self.updates += 1

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchange the weights of ``model`` with the average; a second call brings them back."""
        for name, parameter in self._shared(model):
            current = parameter.detach().clone()
            parameter.copy_(self.average[name])
            self.average[name] = current

    @torch.no_grad()
    def follow(self, name: str, weights: Tensor, source: Tensor, fresh: Tensor) -> None:
        """Keep up with a parameter whose rows have changed: new row i comes from old row ``source[i]``.

        Args:
            name: qualified name of the parameter.
            weights: its present value; the average of fresh rows begins with it.
            source: (M,) indices of old rows.
            fresh: (M,) whether a row has no past.
        """
        if name in self.average:
            average = self.average[name][source]
            average[fresh] = weights.detach()[fresh].to(average.device)
            self.average[name] = average

    def _shared(self, model: nn.Module) -> list[tuple[str, Tensor]]:
        return [(name, parameter) for name, parameter in model.named_parameters() if name in self.average]


class EMA(StepCallback):
    """Keeps a :class:`WeightAverage`, evaluates and exports it, and stores it in checkpoints."""

    def __init__(self, decay: float, every: int = 1) -> None:
        self.decay = decay
        self.every = every
        self.weights: WeightAverage | None = None
        self._restored: dict[str, Any] = {}
        self._swapped = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the average at the present weights, or at the ones of the checkpoint."""
        self.weights = WeightAverage(pl_module, self.decay)
        if self._restored:
            self.weights.updates = self._restored["updates"]
            own = dict(pl_module.named_parameters())
            restored = {name: one for name, one in self._restored["average"].items() if name in own}
            self.weights.average |= {name: one.to(own[name].device) for name, one in restored.items()}

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Average after each step that is due."""
        if self.weights is not None and self.step % self.every == 0:
            self.weights.update(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the average."""
        self._enter(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue with the weights being trained."""
        self._leave(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the average."""
        self._enter(pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the weights back."""
        self._leave(pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export the average."""
        self._enter(pl_module)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the weights back."""
        self._leave(pl_module)

    @contextmanager
    def evaluated(self, model: nn.Module) -> Iterator[None]:
        """The model has the average inside the block, wherever that stands between the Trainer's calls."""
        self._enter(model)
        try:
            yield
        finally:
            self._leave(model)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Never leave the average in the model, or a checkpoint would take it for the weights."""
        self._leave(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The average and the number of its updates."""
        if self.weights is None:
            return dict(self._restored)
        return {"updates": self.weights.updates, "average": self.weights.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember what the checkpoint held until the model is there."""
        self._restored = dict(state_dict)

    def _enter(self, model: nn.Module) -> None:
        if self.weights is None and self._restored:
            self.weights = WeightAverage(model, self.decay)
            self.weights.updates = self._restored["updates"]
            self.weights.average.update(self._restored["average"])
        if self.weights is not None and not self._swapped:
            self.weights.swap(model)
            self._swapped = True

    def _leave(self, model: nn.Module) -> None:
        if self.weights is not None and self._swapped:
            self.weights.swap(model)
            self._swapped = False

"""A loss, a gradient or a weight that went wrong ends the run, with its cause."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from maquette.core.device import is_gpu
from maquette.core.errors import CollapseError
from maquette.training.callbacks.origin import backward_origin, forward_origin
from maquette.training.callbacks.spoilt import check_weights, nan_buffers
from maquette.training.config import CollapseConfig

HINT = "lower the learning rate, set trainer.gradient_clip_val=1.0, or use trainer.precision=32"
REMEMBERED = 64
"""Norms of gradients that tell what is usual."""
FEWEST = 8
"""Norms that have to be known before one can be unusual."""


class CollapseWatch(Callback):
    """Raises as soon as the loss, a gradient or a weight is found not finite, or gradients have exploded.

    On the CPU the loss is looked at in every step, before the backward pass; on a GPU, where a look waits for
    the device, and for gradients and weights, every ``cfg.every`` steps. The checkpoint keeps what is usual.
    """

    def __init__(self, cfg: CollapseConfig) -> None:
        self.cfg = cfg
        self.last_loss = math.nan
        self._norms: list[float] = []
        self._exploding_since: int | None = None
        self._batch: tuple[Any, int] | None = None
        self._looked_at = 0
        self._nan_on_purpose: list[str] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that is resumed has steps already, and modules may mark what is unknown with NaN."""
        self._looked_at = trainer.global_step
        self._nan_on_purpose = nan_buffers(pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch for an examination."""
        self._batch = (batch, batch_idx)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Look at the loss.

        Raises:
            CollapseError: it is infinite or not a number.
        """
        step = trainer.global_step + 1
        if not self.cfg.enabled or (is_gpu(loss.device) and not self._due(trainer, step)):
            return
        if not math.isfinite(value := float(loss.detach())):
            where, details = forward_origin(pl_module, *self._examined())
            raise CollapseError(f"the loss is {value} at step {step}{where}", details, HINT)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Look at the gradients; a gradient scaler deals with those of 16 bits that overflow.

        Raises:
            CollapseError: they are not finite, or have exploded.
        """
        step = trainer.global_step + 1
        if not self.cfg.enabled or not self._due(trainer, step):
            return
        norm = gradient_norm(pl_module)
        if norm is None:
            return
        pl_module.log("train_params/gradient_norm", norm)
        value = float(norm)
        if math.isfinite(value):
            self.look(step, value)
        elif getattr(trainer.precision_plugin, "scaler", None) is None:
            where, details = backward_origin(pl_module, *self._examined())
            raise CollapseError(f"a gradient is {value} at step {step}{where}", details, HINT)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the loss, and look at the weights once a step.

        Raises:
            CollapseError: nothing can be computed from them any more.
        """
        self._batch = None
        step = trainer.global_step
        if not self._due(trainer, step):
            return
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:
            self.last_loss = float(loss) * int(trainer.accumulate_grad_batches)  # the Trainer divides by it
        if self.cfg.enabled and step != self._looked_at:
            self._looked_at = step
            check_weights(trainer, pl_module, self._nan_on_purpose)

    def look(self, step: int, norm: float) -> None:
        """Judge the norm of the gradient of one step.

        Raises:
            CollapseError: it has been far above the usual one for too long.
        """
        usual = median(self._norms) if len(self._norms) >= FEWEST else math.inf
        if norm <= self.cfg.gradient_factor * usual:
            self._exploding_since = None
            self._norms = [*self._norms, norm][-REMEMBERED:]
            return
        if self._exploding_since is None:
            self._exploding_since = step
        if step - self._exploding_since >= self.cfg.patience:
            raise CollapseError(
                f"gradients have exploded since step {self._exploding_since}",
                [f"norm of the gradient = {norm:.3g}, and {usual:.3g} is usual in this run"],
                HINT,
            )

    def state_dict(self) -> dict[str, Any]:
        """What is usual, and since when it is not."""
        return {"norms": self._norms, "exploding_since": self._exploding_since, "last_loss": self.last_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what was usual."""
        self._norms = list(state_dict.get("norms", []))
        self._exploding_since = state_dict.get("exploding_since")
        self.last_loss = state_dict.get("last_loss", math.nan)

    def _due(self, trainer: Trainer, step: int) -> bool:
        return step % self.cfg.every == 0 or step == trainer.max_steps

    def _examined(self) -> tuple[Any, int]:
        if self._batch is None:
            raise AssertionError("a step without a batch")
        return self._batch


def gradient_norm(model: torch.nn.Module) -> Tensor | None:
    """Norm of all gradients together; None where there are none."""
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    return torch.nn.utils.get_total_norm(gradients) if gradients else None


def last_loss(callbacks: Sequence[Callback]) -> float:
    """The loss that was seen last; NaN where nothing was trained."""
    return next((one.last_loss for one in callbacks if isinstance(one, CollapseWatch)), math.nan)

"""How weights, gradients and activations are distributed."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from maquette.training.loggers.tensorboard import TensorBoard
from maquette.training.observing import LoggingConfig


class Histograms(Callback):
    """Logs what ``training.logging.histograms`` lists, for everything that is trained.

    Gradients are those before clipping; activations the first output, in the step, of each module that has
    trained parameters of its own. Between two due steps no hook is installed.
    """

    def __init__(self, cfg: LoggingConfig) -> None:
        self.cfg = cfg
        self._step: int | None = None
        """The due step that is being taken; None between two of them."""
        self._hooks: list[RemovableHandle] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Listen to the modules where the step is due: in the first batch of it, where it has several."""
        step = trainer.global_step
        first = step != self._step
        self._step = step if step % self.cfg.histograms_every == 0 else None
        if first and self._step is not None and "activations" in self.cfg.histograms:
            self._hooks = [
                module.register_forward_hook(self._listener(trainer, f"activations/{name}"))
                for name, module in pl_module.named_modules()
                if any(one.requires_grad for one in module.parameters(recurse=False))
            ]

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Gradients as they came out of the backward pass."""
        if self._step is not None and "gradients" in self.cfg.histograms:
            for name, one in pl_module.named_parameters():
                if one.grad is not None:
                    self._log(trainer, f"gradients/{name}", one.grad)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Weights after the step, when its last batch is done; the modules are left alone again."""
        self._leave()
        if self._step is None or trainer.global_step == self._step:
            return
        if "weights" in self.cfg.histograms:
            for name, one in pl_module.named_parameters():
                if one.requires_grad:
                    self._log(trainer, f"weights/{name}", one)
        self._step = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no hook behind."""
        self._leave()

    def _listener(self, trainer: Trainer, name: str) -> Any:
        heard: list[str] = []

        def hook(module: Any, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not heard:
                heard.append(name)
                self._log(trainer, name, output)

        return hook

    def _log(self, trainer: Trainer, name: str, values: Tensor) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard) and self._step is not None:
                logger.log_histogram(name, values, self._step)

    def _leave(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

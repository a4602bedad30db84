"""Schedulers made of schedulers, which may be made of schedulers again."""

from __future__ import annotations

from typing import Any

from torch.optim import lr_scheduler


class ChainedScheduler(lr_scheduler.ChainedScheduler):
    """torch's product of schedulers, as a part of a sequence too: there it begins anew at its milestone."""

    def step(self, epoch: int | None = None) -> None:
        """Step every part; at ``epoch`` 0 begin anew."""
        begin_anew(self) if epoch == 0 else super().step()

    def _initial_step(self) -> None:
        for part in self._schedulers:
            part._initial_step()
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _update_lr(self, epoch: int | None = None) -> None:
        begin_anew(self)


class SequentialLR(lr_scheduler.SequentialLR):
    """torch's sequence of schedulers, as a part of another sequence too."""

    def step(self, epoch: int | None = None) -> None:
        """Step the part whose turn it is; at ``epoch`` 0 begin anew."""
        begin_anew(self) if epoch == 0 else super().step()

    def _initial_step(self) -> None:
        self._schedulers[0]._initial_step()
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _update_lr(self, epoch: int | None = None) -> None:
        begin_anew(self)


def begin_anew(scheduler: Any) -> None:
    """Put the rates back to the initial ones, and the scheduler to its first step."""
    for group in scheduler.optimizer.param_groups:
        group["lr"] = group["initial_lr"]
    _rewind(scheduler)
    scheduler._initial_step()


def _rewind(scheduler: Any) -> None:
    parts = getattr(scheduler, "_schedulers", ())
    for part in parts:
        _rewind(part)
    scheduler.last_epoch = 0 if parts else -1

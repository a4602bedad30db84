"""The search of autograd for the function whose derivative is no number, with its answer in a file."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from maquette.core.errors import CollapseError
from maquette.core.paths import atomic_path
from maquette.training.callbacks.origin import FUNCTION, called_from

SAID = "Error detected in"
"""How autograd's warning begins."""


class AnomalyMode(Callback):
    """Switches the search on for the optimisation; the Trainer switches it back when that ends."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on, every derivative is checked."""
        torch.autograd.set_detect_anomaly(True)


@contextmanager
def anomaly_search(path: Path) -> Iterator[None]:
    """The file says what is found inside the block, and where it was called.

    Raises:
        CollapseError: a derivative is not a number.
    """
    told: list[str] = []
    with _overheard(told):
        try:
            yield
        except RuntimeError as err:
            function = FUNCTION.search(str(err))
            if function is None:
                raise
            _write(path, "\n".join([str(err), "", *told, *traceback.format_exception(err)]))
            place = called_from(told)
            raise CollapseError(
                f"the derivative of {function[1].removesuffix('0')} is not a number",
                [f"called at {place}"] * bool(place) + [f"both tracebacks: {path}"],
            ) from err
    _write(path, "No derivative was found that is not a number.\n")


@contextmanager
def _overheard(told: list[str]) -> Iterator[None]:
    """Keep what autograd tells of an anomaly; every other warning is shown as ever."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=SAID)
        show = warnings.showwarning

        def hear(message: Warning | str, *args: Any, **kwargs: Any) -> None:
            if str(message).startswith(SAID):
                told.append(str(message))
            else:
                show(message, *args, **kwargs)

        warnings.showwarning = hear
        yield  # catch_warnings puts showwarning back


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

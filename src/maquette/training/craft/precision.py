"""The precision that a run computes in on this machine."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.plugins import MixedPrecision

from maquette.core.device import current_device, is_gpu
from maquette.core.log import get_logger
from maquette.training.config import TrainingConfig

log = get_logger(__name__)

FULL = ("32", "32-true", "64", "64-true")
"""What a CPU is good at."""


def precision_settings(wanted: Any, training: TrainingConfig) -> dict[str, Any]:
    """The Trainer's ``precision``, or the plugin that stands for it.

    On a CPU half precision is slow, and the Trainer would quietly take another kind of it: it computes in
    ``training.precision_on_cpu``, or where that is not given in 32 bits, with a notice.

    Args:
        wanted: ``trainer.precision`` of the recipe; None is 32.
        training: the engine's settings.
    """
    wanted = 32 if wanted is None else wanted
    if is_gpu(current_device()):
        return {"precision": wanted}
    chosen = training.precision_on_cpu or (wanted if str(wanted) in FULL else "32-true")
    if str(chosen) not in (str(wanted), f"{wanted}-true"):
        log.info(
            "precision on the CPU is %s (the recipe asks for %s): set training.precision_on_cpu to change it",
            chosen,
            wanted,
        )
    if chosen == "16-mixed":
        plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
        return {"precision": None, "plugins": [plugin]}
    return {"precision": chosen}

"""The blocks of a recipe that are passed on to Lightning, and where it explains them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

LIBRARY_BLOCKS: dict[str, tuple[str, Callable[..., Any], str]] = {
    "trainer": ("the Trainer of Lightning", Trainer.__init__, inspect.getdoc(Trainer.__init__) or ""),
    "checkpoint": (
        "ModelCheckpoint of Lightning",
        ModelCheckpoint.__init__,
        inspect.getdoc(ModelCheckpoint) or "",
    ),
}
"""Name of the block -> who reads it, the function whose arguments it holds, and their description."""

"""Pictures, videos and meshes in those logs that can show them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from torch import Tensor

from maquette.io.images import quantized
from maquette.ops.mesh import Mesh
from maquette.training.loggers.tensorboard import TensorBoard
from maquette.training.observing import LoggingConfig


def loggers_of(system: Any) -> Sequence[Logger]:
    """The logs of a system; none while it has no Trainer."""
    loggers: Sequence[Logger] = getattr(getattr(system, "_trainer", None), "loggers", ())
    return loggers


def logging_of(system: Any) -> LoggingConfig:
    """What a system is to show in its logs."""
    engine = getattr(system, "engine", None)
    return LoggingConfig() if engine is None else engine.logging


def show_picture(loggers: Sequence[Logger], name: str, picture: Tensor, step: int | None) -> None:
    """A picture (H, W, C), uint8 or in [0, 1]."""
    for logger in loggers:
        if isinstance(logger, TensorBoard):
            logger.log_picture(name, picture, step)
        elif hasattr(logger, "log_image"):
            logger.log_image(key=name, images=[quantized(picture)], step=step)


def show_video(loggers: Sequence[Logger], name: str, path: Path, step: int | None, fps: int) -> None:
    """A video file."""
    for logger in loggers:
        if isinstance(logger, TensorBoard):
            logger.log_video(name, path, step, fps)
        elif hasattr(logger, "log_video"):
            logger.log_video(key=name, videos=[str(path)], step=step, format=[path.suffix[1:]])


def show_mesh(loggers: Sequence[Logger], name: str, mesh: Mesh, step: int | None) -> None:
    """A mesh with the colours of its vertices."""
    for logger in loggers:
        if isinstance(logger, TensorBoard):
            logger.log_mesh(name, mesh, step)

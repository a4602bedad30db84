"""Where the figures and pictures of a run go: TensorBoard, CSV, Weights & Biases; rank 0 writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger

from maquette.core.config import ExperimentConfig
from maquette.training.config import TrainingConfig
from maquette.training.loggers.tensorboard import TensorBoard
from maquette.training.loggers.wandb import WeightsAndBiases
from maquette.training.run_folder import RunFolder

WANDB = "wandb_logs"


def make_loggers(training: TrainingConfig, folder: RunFolder, cfg: ExperimentConfig) -> list[Logger]:
    """The logs that ``training.loggers`` lists; the first one is the one a module calls its logger.

    ``system.loggers.wandb: {enable: true, project, name}``, which recipes of this ecosystem have, is the same
    as ``wandb`` in that list with the settings ``training.logging.wandb``.

    Nothing is written before the Trainer begins.

    Raises:
        MissingBackendError: ``wandb`` is listed, and not installed.
    """
    own = (cfg.system.get("loggers") or {}).get("wandb") or {}
    if own.get("enable", False) and "wandb" not in training.loggers:
        training.loggers = [*training.loggers, "wandb"]
    makers: dict[str, Callable[[], Logger]] = {
        "tensorboard": lambda: TensorBoard(folder.root, name="tb_logs"),
        "csv": lambda: CSVLogger(folder.root, name="csv_logs"),
        "wandb": lambda: _wandb(training, folder, cfg, own),
    }
    return [make() for name, make in makers.items() if name in training.loggers]


def _wandb(
    training: TrainingConfig, folder: RunFolder, cfg: ExperimentConfig, own: Mapping[str, Any]
) -> Logger:
    settings = training.logging.wandb
    return WeightsAndBiases(
        folder.root / WANDB,
        project=own.get("project") or settings.project,
        name=own.get("name") or settings.name or f"{cfg.name}-{cfg.tag}".rstrip("-"),
        offline=settings.offline,
    )

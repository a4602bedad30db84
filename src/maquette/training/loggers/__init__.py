"""Where the figures and pictures of a run go: TensorBoard, CSV, Weights & Biases; rank 0 writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger

from maquette.core.config import ExperimentConfig
from maquette.training.config import TrainingConfig
from maquette.training.loggers.tensorboard import TensorBoard
from maquette.training.loggers.wandb import WeightsAndBiases
from maquette.training.run_folder import RunFolder

WANDB = "wandb_logs"


def make_loggers(
    training: TrainingConfig, folder: RunFolder, cfg: ExperimentConfig, ending: ExitStack
) -> list[Logger]:
    """The logs that ``training.loggers`` lists; the first one is the one a module calls its logger.

    ``system.loggers.wandb: {enable: true, project, name}``, which recipes of this ecosystem have, is the same
    as ``wandb`` in that list with the settings ``training.logging.wandb``.

    Nothing is written before the Trainer begins.

    Args:
        training: the ``training:`` block.
        folder: of the run.
        cfg: the experiment.
        ending: closed when the run has ended, and with it the logs that have to be told.

    Raises:
        MissingBackendError: ``wandb`` is listed, and not installed.
    """
    own = (cfg.system.get("loggers") or {}).get("wandb") or {}
    wanted = {*training.loggers, *(["wandb"] if own.get("enable", False) else [])}
    makers: dict[str, Callable[[], Logger]] = {
        "tensorboard": lambda: TensorBoard(folder.root, name="tb_logs"),
        "csv": lambda: CSVLogger(folder.root, name="csv_logs"),
        "wandb": lambda: _wandb(training, folder, cfg, own, ending),
    }
    return [make() for name, make in makers.items() if name in wanted]


def _wandb(
    training: TrainingConfig,
    folder: RunFolder,
    cfg: ExperimentConfig,
    own: Mapping[str, Any],
    ending: ExitStack,
) -> Logger:
    settings = training.logging.wandb
    logger = WeightsAndBiases(
        folder.root / WANDB,
        project=own.get("project") or settings.project,
        name=own.get("name") or settings.name or f"{cfg.name}-{cfg.tag}".rstrip("-"),
        offline=settings.offline,
    )
    ending.push(logger.end)
    return logger

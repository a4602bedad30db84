"""Where the figures and pictures of a run go: TensorBoard, CSV, Weights & Biases; rank 0 writes."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch.loggers import CSVLogger, Logger

from maquette.core.config import ExperimentConfig
from maquette.core.optional import require
from maquette.training.config import TrainingConfig
from maquette.training.loggers.tensorboard import TensorBoard
from maquette.training.run_folder import RunFolder


def make_loggers(training: TrainingConfig, folder: RunFolder, cfg: ExperimentConfig) -> list[Logger]:
    """The logs that ``training.loggers`` lists; the first one is the one a module calls its logger.

    Raises:
        MissingBackendError: ``wandb`` is listed, and not installed.
    """
    makers: dict[str, Callable[[], Logger]] = {
        "tensorboard": lambda: TensorBoard(folder.root, name="tb_logs"),
        "csv": lambda: CSVLogger(folder.root, name="csv_logs"),
        "wandb": lambda: _wandb(training, folder, cfg),
    }
    return [make() for name, make in makers.items() if name in training.loggers]


def _wandb(training: TrainingConfig, folder: RunFolder, cfg: ExperimentConfig) -> Logger:
    require("wandb", "wandb")
    from lightning.pytorch.loggers import WandbLogger

    settings = training.logging.wandb
    target = folder.root / "wandb_logs"
    target.mkdir(parents=True, exist_ok=True)
    return WandbLogger(
        project=settings.project,
        name=settings.name or f"{cfg.name}-{cfg.tag}".rstrip("-"),
        save_dir=target,
        offline=settings.offline,
    )

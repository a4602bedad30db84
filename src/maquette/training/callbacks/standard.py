"""The callbacks that every training run has."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import Logger

from maquette.core.config import ExperimentConfig
from maquette.core.progress import ProgressListener
from maquette.training.callbacks.collapse import CollapseWatch
from maquette.training.callbacks.growth import GrowthWatch
from maquette.training.callbacks.histograms import Histograms
from maquette.training.callbacks.plateau import Plateau
from maquette.training.callbacks.progress import Progress
from maquette.training.callbacks.speed_log import SpeedLog
from maquette.training.callbacks.time_budget import TimeBudget
from maquette.training.config import TrainingConfig
from maquette.training.durations import seconds_of
from maquette.training.optimization.optimizers import PLATEAU
from maquette.training.overview import ShowOverview
from maquette.training.run_folder import RunFolder


def standard_callbacks(
    training: TrainingConfig,
    folder: RunFolder,
    listeners: Sequence[ProgressListener],
    loggers: Sequence[Logger],
    cfg: ExperimentConfig,
) -> list[Callback]:
    """Everything that watches, measures and reports; what judges a step comes before what writes it down."""
    logging = training.logging
    scheduler = cfg.system.get("scheduler") or {}
    return [
        ShowOverview(listeners, folder),
        *([Plateau(scheduler)] if scheduler.get("name") == PLATEAU else []),
        CollapseWatch(training.collapse),
        *([SpeedLog(logging)] if loggers or logging.timing else []),
        *([Histograms(logging)] if loggers and logging.histograms else []),
        *([LearningRateMonitor(logging_interval="step")] if loggers else []),
        *([GrowthWatch(training.growth)] if training.growth.enabled else []),
        TimeBudget(seconds_of("training.time_budget", training.time_budget)),
        *([Progress(listeners)] if listeners else []),
    ]

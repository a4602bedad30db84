"""What a run is asked to tell of itself: its logs, and warnings; the settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from maquette.core.errors import ConfigError

HISTOGRAMS = ("weights", "gradients", "activations")


@dataclass(kw_only=True)
class WandbConfig:
    """How a run appears in Weights & Biases, where ``training.loggers`` lists ``wandb``."""

    project: str = "maquette"
    """The project it belongs to."""

    name: str | None = None
    """Its name there; the name and tag of the recipe if it is not given."""

    offline: bool = True
    """Write to ``wandb_logs/`` of the run folder only; ``wandb sync`` sends it later."""


@dataclass(kw_only=True)
class LoggingConfig:
    """What is logged besides losses, their weights and learning rates (``trainer.log_every_n_steps``)."""

    histograms: list[str] = field(default_factory=list)
    """Which distributions: ``weights``, ``gradients``, ``activations``; TensorBoard shows them."""

    histograms_every: int = 100
    """Optimiser steps between two histograms of each parameter (of each module, for activations)."""

    pictures: bool = True
    """Whether pictures and videos that the run saves are shown in the logs too."""

    meshes: bool = True
    """Whether exported meshes are shown in TensorBoard, where they can be turned."""

    max_faces: int = 100_000
    """Triangles above which a mesh is only saved; TensorBoard keeps them uncompressed."""

    timing: bool = True
    """Whether the time of each part of a step is measured: data, render, guidance, backward, ..."""

    synchronize: bool = False
    """Wait for the GPU at each mark of the clock: exact times of the parts, slower steps."""

    memory: bool = True
    """Whether the memory of the process, and of the GPU, is logged."""

    wandb: WandbConfig = field(default_factory=WandbConfig)
    """Settings of Weights & Biases."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.histograms if name not in HISTOGRAMS]
        if unknown:
            raise ConfigError("training.logging.histograms", unknown[0], f"some of: {', '.join(HISTOGRAMS)}")
        for key in ("histograms_every", "max_faces"):
            if getattr(self, key) < 1:
                raise ConfigError(f"training.logging.{key}", getattr(self, key), "an integer >= 1")


@dataclass(kw_only=True)
class GrowthConfig:
    """How a run is watched for tensors that pile up; it is told once, and goes on."""

    enabled: bool = True
    """Whether anything is watched."""

    every: int = 500
    """Steps between two looks at all tensors that are alive."""

    rises: int = 3
    """Looks in a row at which there is more than before, until it is told."""

    megabytes: float = 1.0
    """Growth in all these looks together that is worth telling; retained graphs always are."""

    def __post_init__(self) -> None:
        for key in ("every", "rises"):
            if getattr(self, key) < 1:
                raise ConfigError(f"training.growth.{key}", getattr(self, key), "an integer >= 1")
        if not self.megabytes >= 0:
            raise ConfigError("training.growth.megabytes", self.megabytes, "a number >= 0")

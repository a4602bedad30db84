"""The ``training:`` block of a recipe: what our engine adds to the Trainer's own keys."""

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from omegaconf import OmegaConf

from maquette.core.config import ExperimentConfig
from maquette.core.errors import ConfigError
from maquette.core.structured import parse_structured
from maquette.training.craft.rules import freeze_rules, init_rules
from maquette.training.durations import seconds_of
from maquette.training.observing import GrowthConfig, LoggingConfig

FINISHES = ("test", "export")
PRECISIONS = ("32", "32-true", "64", "64-true", "bf16-mixed", "bf16-true", "16-mixed")
MATMUL_PRECISIONS = ("highest", "high", "medium")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")
LOGGERS = ("csv", "tensorboard", "wandb")


@dataclass(kw_only=True)
class EMAConfig:
    """A running average of the weights; see :mod:`maquette.training.callbacks.ema`."""

    enabled: bool = False
    """Whether an average is kept and used for evaluation and export."""

    decay: float = 0.999
    """The share of the old average that survives an update."""

    every: int = 1
    """Optimiser steps between two updates."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise ConfigError("training.ema.decay", self.decay, "a number in [0, 1)")
        _check_at_least("training.ema.every", self.every, 1)


@dataclass(kw_only=True)
class CollapseConfig:
    """When a run is called off instead of burning an hour on nothing."""

    enabled: bool = True
    """Whether anything is watched."""

    every: int = 10
    """Steps between two looks; a look reads one number back from the device."""

    patience: int = 100
    """Steps a picture must stay empty, or full, in a row."""

    empty_below: float = 1e-3
    """Mean opacity under which the picture counts as empty."""

    full_above: float = 0.995
    """Mean opacity over which the picture counts as full."""

    gradient_factor: float = 1e4
    """A gradient whose norm is so many times the usual one, for ``patience`` steps in a row, has exploded."""

    def __post_init__(self) -> None:
        _check_at_least("training.collapse.every", self.every, 1)
        _check_at_least("training.collapse.patience", self.patience, 0)
        if not self.gradient_factor > 1:  # what is no number is not
            raise ConfigError("training.collapse.gradient_factor", self.gradient_factor, "a number > 1")
        for name in ("empty_below", "full_above"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"training.collapse.{name}", getattr(self, name), "a number in [0, 1]")
        if self.empty_below > self.full_above:
            expected = f"at least training.collapse.empty_below, {self.empty_below}"
            raise ConfigError("training.collapse.full_above", self.full_above, expected)


@dataclass(kw_only=True)
class TrainingConfig:
    """Settings of the engine. Keys of the Lightning Trainer belong to ``trainer:``."""

    checkpoint_every: int = 200
    """Steps between two writes of ``ckpts/last.ckpt``; also written at the end and when the run breaks."""

    finish: list[str] = field(default_factory=lambda: ["test", "export"])
    """What follows the optimisation: ``test`` (views of the model), ``export`` (files of the asset)."""

    loggers: list[str] = field(default_factory=lambda: ["csv", "tensorboard"])
    """Where the scalars go: ``csv``, ``tensorboard``, ``wandb`` (Weights & Biases, an extra)."""

    logging: LoggingConfig = field(default_factory=LoggingConfig)
    """What is logged besides scalars, and how often."""

    time_budget: Any = None
    """Time after which the optimisation stops as if it were done, and can be resumed: seconds, or a text such
    as 90m or 1h30m. It is counted from the start, or the resumption, of the run (of each stage, if there are
    several)."""

    snapshot_code: bool = True
    """Whether the package's source and the extensions are copied into ``code/``."""

    precision_on_cpu: str | None = None
    """What a CPU computes in, by name: 32-true, 64-true, bf16-mixed, bf16-true, 16-mixed (with a scaler).
    null: 32, whatever half precision ``trainer.precision`` asks a GPU for."""

    matmul_precision: str = "highest"
    """Internal precision of float32 matrix products: highest, high (TF32 on a GPU), medium (bfloat16)."""

    init: list[Any] = field(default_factory=list)
    """How weights begin, rules ``{pattern, scheme, args}``; see `InitRule` in `training.craft.rules`."""

    freeze: list[Any] = field(default_factory=list)
    """What does not learn: patterns, or rules ``{pattern, since, until}``; see
    :class:`maquette.training.craft.rules.FreezeRule`."""

    compile: list[str] = field(default_factory=list)
    """Modules, by dotted path, whose forward pass is compiled (``torch.compile``) at their first call."""

    compile_mode: str = "default"
    """How hard the compiler tries: default, reduce-overhead, max-autotune."""

    channels_last: list[str] = field(default_factory=list)
    """Modules with convolutions, by dotted path, whose memory has the channel as its innermost dimension."""

    gradient_checkpointing: list[str] = field(default_factory=list)
    """Modules, by dotted path, that are computed again for the gradients instead of remembered."""

    deterministic: bool = False
    """Refuse operations whose result may differ from run to run."""

    ema: EMAConfig = field(default_factory=EMAConfig)
    """Average of the weights."""

    collapse: CollapseConfig = field(default_factory=CollapseConfig)
    """Early end of runs that went wrong."""

    growth: GrowthConfig = field(default_factory=GrowthConfig)
    """Warnings about memory that is never given back."""

    def __post_init__(self) -> None:
        _check_at_least("training.checkpoint_every", self.checkpoint_every, 1)
        _check_names("training.finish", self.finish, FINISHES)
        _check_names("training.loggers", self.loggers, LOGGERS)
        if self.precision_on_cpu is not None:
            _check_name("training.precision_on_cpu", self.precision_on_cpu, PRECISIONS)
        _check_name("training.matmul_precision", self.matmul_precision, MATMUL_PRECISIONS)
        _check_name("training.compile_mode", self.compile_mode, COMPILE_MODES)
        init_rules(self.init)
        freeze_rules(self.freeze)
        seconds_of("training.time_budget", self.time_budget)


def training_config(cfg: ExperimentConfig) -> TrainingConfig:
    """The ``training:`` block of an experiment.

    Raises:
        UnknownKeyError: there is no such key.
        ConfigError: a key has a value that cannot be.
    """
    settings: TrainingConfig = OmegaConf.to_object(
        parse_structured(TrainingConfig, cfg.training, key="training")
    )
    return settings


def _check_at_least(key: str, given: int, least: int) -> None:
    if given < least:
        raise ConfigError(key, given, f"an integer >= {least}")


def _check_names(key: str, given: list[str], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise ConfigError(key, list(given), f"a list of: {', '.join(known)}", _near(name, known))


def _check_name(key: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise ConfigError(key, given, f"one of: {', '.join(known)}", _near(given, known))


def _near(name: str, known: tuple[str, ...]) -> str | None:
    near = get_close_matches(str(name), known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else None

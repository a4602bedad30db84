"""A Lightning Trainer from the ``trainer:`` block, with the engine's own callbacks and loggers."""

from __future__ import annotations

import difflib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, get_type_hints

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from maquette.core.device import trainer_accelerator
from maquette.core.errors import ConfigError, UnknownKeyError, UserError
from maquette.core.log import get_logger, set_library_verbosity
from maquette.core.processes import is_leader
from maquette.core.structured import type_name
from maquette.core.typecheck import accepts
from maquette.training.arguments import called, check_arguments
from maquette.training.callbacks.checkpoint import WholeCheckpoints
from maquette.training.callbacks.ema import EMA
from maquette.training.config import TrainingConfig
from maquette.training.craft.precision import precision_settings
from maquette.training.durations import seconds_of
from maquette.training.run_folder import RunFolder

log = get_logger(__name__)

OURS = {
    "logger": "training.loggers",
    "callbacks": "the callbacks of the system",
    "default_root_dir": "exp_root_dir, or --out",
    "accelerator": "CUDA_VISIBLE_DEVICES",
    "deterministic": "training.deterministic",
    "max_time": "training.time_budget, which tests and exports afterwards",
}
"""Keys of the Trainer that the engine sets itself, and what to use in their place."""

FIXED = {
    "enable_progress_bar": "the commands draw their own",
    "enable_model_summary": "nothing shows it",
    "inference_mode": "evaluation needs gradients for normals",
}
"""Keys of the Trainer that recipes of this ecosystem carry, that are always off here, and why."""

REFUSALS = (TypeError, ValueError, MisconfigurationException)
"""What Lightning raises at values that it does not take."""

NOISY = (
    "lightning",
    "lightning.pytorch",
    "lightning.fabric",
    "pytorch_lightning",
    "transformers",
    "diffusers",
)


def make_trainer(
    config: Mapping[str, Any],
    training: TrainingConfig,
    folder: RunFolder,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
) -> Trainer:
    """The Trainer of a run; matrix products are as precise as ``training`` says from here on.

    Raises:
        UnknownKeyError: the Trainer has no such key.
        ConfigError: the key belongs to the engine, or the Trainer refuses its value.
    """
    settings = check_trainer(config)
    torch.set_float32_matmul_precision(training.matmul_precision)
    precision = precision_settings(settings.get("precision"), training)
    settings["precision"] = precision["precision"]
    settings.setdefault("devices", 1)
    fixed = {
        "accelerator": trainer_accelerator(),
        "callbacks": list(callbacks),
        "logger": list(loggers) or False,
        "default_root_dir": folder.root,
        "deterministic": training.deterministic,
        "plugins": [
            *_plugins(settings.get("plugins")),
            WholeCheckpoints(next((one for one in callbacks if isinstance(one, EMA)), None)),
            *precision.get("plugins", ()),
        ],
        **dict.fromkeys(FIXED, False),
    }
    try:
        return Trainer(**(settings | fixed))
    except REFUSALS as err:
        raise ConfigError("trainer", settings, f"values that the Lightning Trainer accepts ({err})") from err


def _plugins(given: Any) -> list[Any]:
    """Those of the recipe."""
    return list(given) if isinstance(given, list | tuple) else [given] if given else []


@contextmanager
def refused_by_lightning() -> Iterator[None]:
    """What Lightning finds wrong only when it begins, since it depends on the data, is told as a mistake.

    Raises:
        UserError: a setting does not suit the others.
    """
    try:
        yield
    except MisconfigurationException as err:
        raise UserError("Settings of the recipe do not go together.", str(err).splitlines()[:6]) from err


def check_trainer(config: Mapping[str, Any]) -> dict[str, Any]:
    """The ``trainer:`` block, every key and value tested.

    Raises:
        UnknownKeyError: the Trainer has no such key.
        ConfigError: the key belongs to the engine, or the Trainer takes other values.
    """
    hints = get_type_hints(Trainer.__init__)
    known = [name for name in hints if name != "return"]
    for key, value in config.items():
        if key in OURS:
            raise ConfigError(f"trainer.{key}", value, f"nothing: use {OURS[key]}")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3)
            raise UnknownKeyError(f"trainer.{key}", near, known)
        if not accepts(hints[key], value):
            raise ConfigError(f"trainer.{key}", value, type_name(hints[key]))
        if key in FIXED and value:
            log.info("trainer.%s has no effect: %s", key, FIXED[key])
    return dict(config)


def recipe_checkpoints(config: Mapping[str, Any], folder: RunFolder) -> list[Callback]:
    """The ``checkpoint:`` block of a recipe; ``last.ckpt`` is left to the engine, which writes it more often.

    Raises:
        UnknownKeyError: ModelCheckpoint has no such argument.
        ConfigError: it refuses the value of one.
    """
    if not config:
        return []
    settings = {key: value for key, value in config.items() if key != "save_last"}
    if isinstance(settings.get("filename"), str):
        settings |= _flat_names(settings["filename"], settings.get("auto_insert_metric_name", True))
    if settings.get("train_time_interval") is not None:
        seconds = seconds_of("checkpoint.train_time_interval", settings["train_time_interval"])
        settings["train_time_interval"] = timedelta(seconds=seconds or 0.0)
    check_arguments("checkpoint", ModelCheckpoint, settings, filled=("dirpath",))
    make = partial(ModelCheckpoint, dirpath=folder.ckpts)
    return [called("checkpoint", "ModelCheckpoint", make, settings, REFUSALS)]


def _flat_names(filename: str, named: bool) -> dict[str, Any]:
    """Names of checkpoints that are no paths: metrics have a slash in theirs, and everybody looks for
    checkpoints in ``ckpts`` itself.
    """

    def shown(name: str) -> str:
        return name.replace("/", "-")

    parts = re.split(r"(\{[^}]*\})", filename)
    metrics = [re.split(r"[:}]", part[1:])[0] for part in parts[1::2]]
    texts = [shown(text) for text in parts[::2]]
    groups = [
        f"{shown(name)}={part}" if named else part for name, part in zip(metrics, parts[1::2], strict=True)
    ]
    flat = "".join(text + group for text, group in zip(texts, [*groups, ""], strict=True))
    return {"filename": flat, "auto_insert_metric_name": False}


@contextmanager
def quiet(verbose: bool = False) -> Iterator[None]:
    """Keep the notes and tips of libraries off the screen inside the block."""
    set_library_verbosity(verbose)
    levels = {name: logging.getLogger(name).level for name in NOISY}
    with warnings.catch_warnings():
        if not verbose:
            warnings.filterwarnings("ignore", module="lightning.*")
            warnings.filterwarnings("ignore", module="torch.*", category=FutureWarning)
        if not is_leader():
            warnings.simplefilter("ignore")
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)

"""Weights & Biases: one run there for each run here, which ends with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from maquette.core.errors import UserError
from maquette.core.optional import require

SETTINGS = {"silent": True, "console": "off", "save_code": False, "x_disable_stats": True}
"""The messages, the source and the logs of memory are in the run folder already."""


class WeightsAndBiases(WandbLogger):
    """Lightning's logger, which ends with the run; offline it asks nobody and writes into ``folder`` only.

    Nothing is done but on rank 0. A run that is resumed keeps its identity: every start has a folder
    ``wandb/offline-run-DATE-ID``, with the ``ID`` of the first.

    Args:
        folder: where everything is written.
        project: the project that the run belongs to.
        name: what the run is called there.
        offline: keep it in the folder, for ``wandb sync``.

    Raises:
        MissingBackendError: ``wandb`` is not installed.
    """

    def __init__(self, folder: Path, *, project: str, name: str, offline: bool) -> None:
        if offline:
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when the package is imported
        require("wandb", "wandb")
        super().__init__(
            name=name,
            project=project,
            save_dir=folder,
            mode="offline" if offline else "online",
            resume=None if offline else "allow",
            settings=SETTINGS,
        )
        self._wandb_init.pop("anonymous", None)  # which has no effect but a warning

    @property
    def experiment(self) -> Any:
        """The run of ``wandb``, begun when it is asked for first.

        Raises:
            UserError: nobody is logged in, or nothing answers.
        """
        if self._experiment is not None or rank_zero_only.rank != 0:
            return super().experiment
        folder = Path(str(self.save_dir))
        self._wandb_init["id"] = self._id = _id_of(folder)  # now that an old run is out of the way
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with _environment(WANDB_CACHE_DIR=folder / "cache", WANDB_DATA_DIR=folder / "data"):
                return super().experiment
        except require("wandb.errors", "wandb").Error as err:
            hint = "wandb login, or training.logging.wandb.offline=true"
            raise UserError("Weights & Biases does not begin the run.", [str(err)], hint) from err

    def end(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run, well or not, and the program that writes it; to be pushed on an ``ExitStack``."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if kind is None else 1)
            require("wandb", "wandb").teardown()


def _id_of(folder: Path) -> str | None:
    """The identity of a run that has been here before."""
    starts = folder.glob("wandb/*run-*-*")
    return next((path.name.rpartition("-")[2] for path in starts), None)


@contextmanager
def _environment(**values: Path) -> Iterator[None]:
    """Set variables that are not set inside the block."""
    missing = {name: str(value) for name, value in values.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]

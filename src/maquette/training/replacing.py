"""A run that begins where another one is: the old one is kept until the new one has a checkpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maquette.core.config import ExperimentConfig
from maquette.core.errors import ConfigError, UserError
from maquette.core.log import get_logger
from maquette.core.paths import remove, unfinished_name
from maquette.core.processes import is_leader
from maquette.training.run_folder import RunFolder

log = get_logger(__name__)

PLACES = ("run_dir", "exp_root_dir", "resume")
"""Keys that say where a run is written, or goes on."""

POLL = 0.1
"""Seconds between two looks at whether the leading process is done."""

PATIENCE = 60.0
"""Seconds after which the others stop waiting for it."""


class OldRun:
    """What a run folder held before: moved to ``RUN/.replaced``, from where it comes back or is removed.

    Everything is a renaming, and a program that is killed at any moment leaves one of three states, which
    :meth:`settle` and the next :meth:`set_aside` understand:

    - ``.replacing`` is there: some of the old run is in it, the rest still, or again, where it was;
    - ``.replaced`` is there: all of the old run, and outside what the new one has come to;
    - neither is: the folder holds one run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._made_room = False
        """Whether this object has made room for a new run, which has no checkpoint yet."""

    @property
    def path(self) -> Path:
        """Where the old run is while the new one begins; a run folder, too."""
        return self.folder.root / ".replaced"

    @property
    def _halfway(self) -> Path:
        return self.folder.root / ".replacing"

    def set_aside(self) -> None:
        """Make room for the new run. If a killed replacement left two runs, both are kept, the older one
        within the newer; only a newer one without a checkpoint is removed.

        Raises:
            UserError: something has the name of what a run writes, and no run was begun here.
        """
        self.settle()
        self.folder.check_replaceable()
        self._made_room = True
        older = [self.path] if self.path.is_dir() else []
        if older and not self.folder.has_checkpoint:
            self.folder.clear()
        elif content := self.folder.content():
            self._halfway.mkdir()
            for path in [*content, *older]:
                path.replace(self._halfway / path.name)
            self._halfway.replace(self.path)

    def drop(self) -> None:
        """The new run has a checkpoint: remove the old one."""
        self._made_room = False
        if self.path.is_dir():
            gone = self.path.with_name(unfinished_name(self.path))
            self.path.replace(gone)
            remove(gone)

    def recover(self, err: BaseException) -> None:
        """The new run ended before its first checkpoint. A mistake of the user, or a signal, brings the old
        one back. After anything else both are kept: what the new one has written tells what went wrong.
        """
        if not self._made_room:
            return
        comes_back = isinstance(err, UserError | KeyboardInterrupt | SystemExit) and self.can_come_back
        if comes_back or self._halfway.is_dir():
            self._put_back()
            log.info("the run that was in the folder is there again: %s", self.folder.root)
        elif isinstance(err, UserError) and not self.path.is_dir() and not self.folder.has_checkpoint:
            self.folder.clear()  # no run was there: what is there now, the new one has written
        else:
            self.say_kept()
        self._made_room = False

    @property
    def can_come_back(self) -> bool:
        """Whether the old run was set aside, and nothing would be lost with the new one."""
        return self._made_room and self.path.is_dir() and not self.folder.has_checkpoint

    def say_kept(self) -> None:
        """Tell, once, where the old run is, if it was set aside and not removed."""
        if self._made_room and self.path.is_dir():
            log.warning("the run that was to be replaced is kept in %s", self.path)
        self._made_room = False

    def settle(self) -> None:
        """Finish what a killed program has left half done: a new run without a recipe has not begun, and the
        old one is put back. Of several processes the leading one does it, and the others wait for that.
        """
        if not is_leader():
            self._wait_until_settled()
        elif not self._is_settled:
            self._put_back()
        elif self.path.is_dir():
            log.info("the old run is kept in %s until the new one has a checkpoint", self.path)

    @property
    def _is_settled(self) -> bool:
        """Whether nothing is half done; ``path``, which becomes ``_halfway``, has to be looked at first."""
        is_half_begun = self.path.is_dir() and not self.folder.recipe.is_file()
        return not is_half_begun and not self._halfway.is_dir()

    def _wait_until_settled(self) -> None:
        begin = time.monotonic()
        while not self._is_settled and time.monotonic() - begin < PATIENCE:
            time.sleep(POLL)

    def _put_back(self) -> None:
        if not self._halfway.is_dir():
            self.folder.clear()
            self.path.replace(self._halfway)
        for path in list(self._halfway.iterdir()):
            target = self.folder.root / path.name
            remove(target)
            path.replace(target)
        self._halfway.rmdir()


def check_not_needed(cfg: ExperimentConfig, folder: RunFolder) -> None:
    """Refuse to replace a run that the new one begins with.

    Raises:
        ConfigError: a value of the recipe is a file of the run.
    """
    for key, text in _texts(cfg.to_dict()):
        for path in (text, text.partition("mesh:")[2], text.rpartition(":")[0]):
            if path and key not in PLACES and os.path.exists(path) and folder.holds(Path(path)):
                raise ConfigError(
                    key, text, f"a file outside of {folder.root}, which is replaced", "choose another --out"
                )


def _texts(content: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a config, with its dotted key."""
    if isinstance(content, str):
        yield prefix, content
    items = content.items() if isinstance(content, Mapping) else ()
    for key, value in [*items, *(enumerate(content) if isinstance(content, list) else ())]:
        yield from _texts(value, f"{prefix}.{key}" if prefix else str(key))


@contextmanager
def kept_until_it_works(*old: OldRun) -> Iterator[None]:
    """When the block ends or breaks, see to the old runs that were set aside in it and not dropped."""
    try:
        yield
    except BaseException as err:
        if is_leader():
            for one in old:
                one.recover(err)
        raise
    for one in old:
        one.say_kept()

"""A run that begins where another one is: the old one is kept until the new one has shown that it works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maquette.core.errors import UserError
from maquette.core.log import get_logger
from maquette.core.paths import unfinished_name
from maquette.core.processes import is_leader
from maquette.training.run_folder import RunFolder, remove

log = get_logger(__name__)


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
        self._is_ours = False

    @property
    def path(self) -> Path:
        """Where the old run is while the new one begins; a run folder, too."""
        return self.folder.root / ".replaced"

    @property
    def _halfway(self) -> Path:
        return self.folder.root / ".replacing"

    def set_aside(self) -> None:
        """Make room for the new run. Where there are two already, because one was killed that was to replace
        the other, the one that is kept is the newest that holds work.

        Raises:
            UserError: something has the name of what a run writes, and no run was begun here.
        """
        self.settle()
        self.folder.check_replaceable()
        if self.path.is_dir() and self.folder.has_checkpoint:
            self.drop()
        if self.path.is_dir():
            self._is_ours = True
            self.folder.clear()
        elif content := self.folder.content():
            self._is_ours = True
            self._halfway.mkdir()
            for path in content:
                path.replace(self._halfway / path.name)
            self._halfway.replace(self.path)

    def drop(self) -> None:
        """The new run has shown that it works: remove the old one."""
        self._is_ours = False
        if self.path.is_dir():
            gone = self.path.with_name(unfinished_name(self.path))
            self.path.replace(gone)
            remove(gone)

    def recover(self, err: BaseException) -> None:
        """The new run broke. Put the old one back if that was by a mistake or a wish of the user, before the
        new one held work; else keep both, since what the new one has written tells what went wrong.
        """
        if not self._is_ours:
            return
        self._is_ours = False
        by_user = isinstance(err, UserError | KeyboardInterrupt) and not self.folder.has_checkpoint
        if by_user or self._halfway.is_dir():
            self._put_back()
            log.info("the run that was in the folder is there again: %s", self.folder.root)
        else:
            log.warning("the run that was to be replaced is kept in %s", self.path)

    def settle(self) -> None:
        """Finish what a killed program has left half done: without a recipe the new run has not begun."""
        if self._halfway.is_dir() or (self.path.is_dir() and not self.folder.recipe.is_file()):
            self._put_back()
        elif self.path.is_dir():
            log.info("the run that is to be replaced is kept in %s until the new one works", self.path)

    def _put_back(self) -> None:
        if not self._halfway.is_dir():
            self.folder.clear()
            self.path.replace(self._halfway)
        for path in list(self._halfway.iterdir()):
            target = self.folder.root / path.name
            remove(target)
            path.replace(target)
        self._halfway.rmdir()


@contextmanager
def kept_until_it_works(*old: OldRun) -> Iterator[None]:
    """When the block breaks, see to the old runs that were set aside in it and not dropped."""
    try:
        yield
    except BaseException as err:
        if is_leader():
            for one in old:
                one.recover(err)
        raise

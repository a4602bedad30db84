"""The folder of one run: where everything goes, and what is written about the run itself."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import maquette
from maquette.core.errors import UserError
from maquette.core.paths import atomic_path

CODE_SUFFIXES = (".py", ".yaml", ".toml")

CONTENT = (
    "stages", "ckpts", "configs", "code", "tb_logs", "csv_logs", "save", "cmd.txt", "config.yaml", "run.json",
    "run-validate.json", "run-test.json", "run-export.json",
    "error.log", "mesh.glb", "turntable.mp4", "preview.png", "mesh.report.json",
)  # fmt: skip
"""Everything a run writes at the top of its folder."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of the ecosystem's output tree below ``root``; nothing exists before :meth:`create`."""

    root: Path

    @property
    def ckpts(self) -> Path:
        """Checkpoints."""
        return self.root / "ckpts"

    @property
    def configs(self) -> Path:
        """The recipe as it was given (``raw.yaml``) and as it was run (``parsed.yaml``)."""
        return self.root / "configs"

    @property
    def code(self) -> Path:
        """The source that ran."""
        return self.root / "code"

    @property
    def save(self) -> Path:
        """Pictures, videos and exported files, by step."""
        return self.root / "save"

    @property
    def last_checkpoint(self) -> Path:
        """The checkpoint a run is resumed from."""
        return self.ckpts / "last.ckpt"

    @property
    def stages(self) -> Path:
        """The runs of the stages, where there are several."""
        return self.root / "stages"

    @property
    def has_checkpoint(self) -> bool:
        """Whether something was optimised here that a run can be resumed from."""
        return self.last_checkpoint.exists() or any(self.stages.glob("*/ckpts/last.ckpt"))

    @property
    def log_file(self) -> Path:
        """Where the traceback of an unexpected failure goes."""
        return self.root / "error.log"

    def check_usable(self, reuse: bool) -> None:
        """Find out that a run cannot be written here before any work is done; makes no folder.

        Args:
            reuse: whether files of an earlier run may be there.

        Raises:
            UserError: the nearest folder that exists is not writable, or is a file, or the folder is in use.
        """
        if not reuse and self.root.is_dir() and any(self.root.iterdir()):
            raise UserError(
                f"The output folder is not empty: {self.root}",
                hint="choose another, replace its run with --overwrite, or continue it with launch --resume",
            )
        nearest = next(folder for folder in (self.root, *self.root.absolute().parents) if folder.exists())
        if not nearest.is_dir():
            raise UserError(
                f"The output folder cannot be made: {nearest} is a file.", hint="choose another folder"
            )
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise UserError(
                f"The output folder is not writable: {self.root}",
                [f"no permission to write in {nearest}"],
                "choose another one with --out DIR or exp_root_dir=DIR",
            )

    @property
    def is_run(self) -> bool:
        """Whether a run was begun here."""
        return (self.configs / "parsed.yaml").is_file()

    def holds(self, path: Path | None) -> bool:
        """Whether a file lies below this folder."""
        return path is not None and path.resolve().is_relative_to(self.root.resolve())

    def clear(self) -> None:
        """Remove what a run has left here; files that no run writes stay.

        Raises:
            UserError: something has the name of what a run writes, and no run was begun here.
        """
        there = [name for name in CONTENT if name != "error.log" and (self.root / name).exists()]
        if there and not self.is_run:
            raise UserError(
                f"The folder holds no run, and is not overwritten: {self.root}",
                [f"these would be lost: {', '.join(there)}"],
                "choose another folder",
            )
        for name in CONTENT:
            path = self.root / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def create(self) -> None:
        """Make the folder.

        Raises:
            UserError: the system refused.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise UserError(f"The output folder cannot be made: {self.root}", [str(err)]) from err

    def write_configs(self, text: str, raw: str | Path | None) -> None:
        """Keep the recipe: resolved, as ``configs/parsed.yaml`` and ``config.yaml``, and as it was given."""
        for path in (self.configs / "parsed.yaml", self.root / "config.yaml"):
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        if raw is not None and Path(raw).is_file():
            shutil.copyfile(raw, self.configs / "raw.yaml")

    def write_command(self) -> None:
        """Keep the command line in ``cmd.txt``."""
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        (self.root / "cmd.txt").write_text(command + "\n", encoding="utf-8")

    def write_code(self, extensions: Iterable[str | Path] = ()) -> None:
        """Copy the package's source and the extensions into ``code/``."""
        package = Path(maquette.__file__).parent
        for source in (package, *map(Path, extensions)):
            _copy_source(source, self.code / source.name)


@contextmanager
def nothing_left_behind(folder: RunFolder) -> Iterator[None]:
    """Remove what a run has made, its folder and the parents made for it too, if the user's mistake shows
    only after that.
    """
    root = folder.root.absolute()
    made = [path for path in (root, *root.parents) if not path.exists()]
    was_empty = root.is_dir() and not any(root.iterdir())
    try:
        yield
    except UserError:
        if (made or was_empty) and root.is_dir() and not folder.has_checkpoint:
            _empty(root)
            for path in made:
                if not any(path.iterdir()):
                    path.rmdir()
        raise


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _copy_source(source: Path, target: Path) -> None:
    files = (
        [source] if source.is_file() else [path for path in source.rglob("*") if path.suffix in CODE_SUFFIXES]
    )
    for path in files:
        into = target if path == source else target / path.relative_to(source)
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, into)

"""The folder of one run: where everything goes, and what is written about the run itself."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import maquette
from maquette.core.errors import UserError
from maquette.core.paths import atomic_path, is_unfinished, remove, unfinished_name
from maquette.core.processes import is_leader
from maquette.training.git_state import write_git_state

CODE_SUFFIXES = (".py", ".yaml", ".toml")

CONTENT = (
    "stages", "ckpts", "configs", "code", "tb_logs", "csv_logs", "wandb_logs", "save",
    "attribution", "edit", "samples", "profiling",
    "pytorch_lora_weights.safetensors", "learned_embeds.safetensors", "pipeline", "samples.png",
    "caption-model", "classifier.safetensors", "vae", "prior",
    "cmd.txt", "config.yaml", "run.json", "run-*.json", "error.log",
    "mesh.glb", "turntable.mp4", "preview.png", "mesh.report.json",
)  # fmt: skip
"""Everything that is written at the top of a run folder, as patterns. Who writes something new adds its name;
what is not listed survives `--overwrite`."""

RECIPE = ("configs", "config.yaml", "cmd.txt")
"""What stays when a run without a checkpoint begins again."""


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
    def recipe(self) -> Path:
        """The recipe as it is run; the first file of a run."""
        return self.configs / "parsed.yaml"

    @property
    def has_checkpoint(self) -> bool:
        """Whether something was optimised here that a run can be resumed from."""
        stages = [RunFolder(path) for path in self.stages.glob("*")]
        return any(one.checkpoints for one in (self, *stages))

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints of the run itself, whole or not, without those that were still being written."""
        return sorted(path for path in self.ckpts.glob("*.ckpt") if not is_unfinished(path))

    @property
    def log_file(self) -> Path:
        """Where the traceback of an unexpected failure goes."""
        return self.root / "error.log"

    def check_usable(self, reuse: bool) -> None:
        """Refuse a folder that a run cannot be written to, before any work is done; nothing is made.

        Args:
            reuse: whether files of an earlier run may be there.

        Raises:
            UserError: the nearest folder that exists is not writable, or is a file, or the folder is in use.
        """
        if not reuse and self.root.is_dir() and not self._is_unused:
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
        """Whether a run was begun here, or something was made from its weights."""
        signs = (self.recipe, self.root / "run.json", *self.root.glob("run-*.json"))
        return any(path.is_file() for path in signs)

    @property
    def _is_unused(self) -> bool:
        """Whether there is at most what a run left that was killed before its recipe was written."""
        known = (self.configs, self.configs / "raw.yaml")
        return all(path in known or is_unfinished(path) for path in self.root.rglob("*"))

    def holds(self, path: Path | None) -> bool:
        """Whether a file lies below this folder, or it is this folder."""
        return path is not None and path.resolve().is_relative_to(self.root.resolve())

    def content(self) -> list[Path]:
        """What a run has written at the top of the folder."""
        return [path for pattern in CONTENT for path in self.root.glob(pattern)]

    def check_replaceable(self) -> None:
        """Refuse to replace files that have the names of a run's files and belong to no run.

        Raises:
            UserError: no run was begun here.
        """
        lost = [path.name for path in self.content() if path != self.log_file]
        if lost and not self.is_run and not self._is_unused:
            raise UserError(
                f"The folder holds no run, and is not overwritten: {self.root}",
                [f"these would be lost: {', '.join(lost)}"],
                "choose another folder",
            )

    def clear(self, keep_recipe: bool = False) -> None:
        """Remove what a run has left here; files that no run writes stay."""
        kept = RECIPE if keep_recipe else ()
        for path in self.content():
            if path.name not in kept:
                remove(path)

    def forget_end(self) -> None:
        """Remove what was written when the run ended or broke: it goes on."""
        for path in (self.root / "run.json", self.log_file):
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
        given = [] if raw is None or not Path(raw).is_file() else [Path(raw).read_bytes()]
        for content in given:
            _write(self.configs / "raw.yaml", content)
        for path in (self.recipe, self.root / "config.yaml"):
            _write(path, text.encode())

    def write_command(self) -> None:
        """Keep the command line in ``cmd.txt``."""
        program = Path(sys.argv[0])
        name = "maquette" if program.parts[-2:] == ("apps", "main.py") else program.name
        command = shlex.join([name, *sys.argv[1:]])
        _write(self.root / "cmd.txt", f"{command}\n".encode())

    def write_code(self, extensions: Iterable[str | Path] = ()) -> None:
        """Copy the package's source and the extensions into ``code/``, each there whole or not at all; with
        the commit, and what differs from it, where a checkout is run.
        """
        package = Path(maquette.__file__).parent
        for source in (package, *map(Path, extensions)):
            _copy_source(source, self.code / source.name)
            write_git_state(source, self.code)


@contextmanager
def nothing_left_behind(folder: RunFolder) -> Iterator[None]:
    """If the block ends in a mistake of the user, remove what it has written, and the folders made for it.

    Only where nothing was there before, and only in the leading process.
    """
    if not is_leader():
        yield
        return
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
        remove(path)


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _copy_source(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=unfinished_name(target) + "-", dir=target.parent) as folder:
        copy = Path(folder) / target.name
        if source.is_file():
            shutil.copyfile(source, copy)
        else:
            _copy_files(source, copy)
        remove(target)
        copy.replace(target)


def _copy_files(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.rglob("*"):
        if path.suffix in CODE_SUFFIXES:
            into = target / path.relative_to(source)
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, into)

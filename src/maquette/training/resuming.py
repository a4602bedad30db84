"""What a run goes on from: its newest complete checkpoint, and settings that may have changed since."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from maquette.core.config import ExperimentConfig
from maquette.core.errors import MissingFileError, UserError
from maquette.core.loading import is_whole, load_checkpoint
from maquette.core.log import get_logger
from maquette.training.run_folder import RunFolder

log = get_logger(__name__)

PLACES = ("run_dir", "exp_root_dir", "use_timestamp", "timestamp", "tag", "name", "description", "resume")
"""Settings that say where and how a run is kept, not what it is."""

SHOWN = 12
"""Changes that are listed."""


def newest_checkpoint(folder: RunFolder, training: bool = True) -> Path | None:
    """The complete checkpoint with the most steps, the engine's own or a recipe's; None if there is none.

    Args:
        folder: of the run.
        training: whether optimisation is to go on, for which weights alone do not do.

    Raises:
        UserError: there are checkpoints, and every one of them is damaged.
    """
    steps: dict[Path, int] = {}
    damaged = []
    for path in folder.checkpoints:
        try:
            content = load_checkpoint(path, mapped=True)
        except UserError:
            damaged.append(path)
            continue
        if not training or "optimizer_states" in content:
            steps[path] = int(content.get("global_step", 0))
    for path in sorted(steps, key=lambda one: (steps[one], one == folder.last_checkpoint), reverse=True):
        if is_whole(path):
            return _told(path, damaged)
        damaged.append(path)
    if damaged:
        raise UserError(
            f"Every checkpoint of this run is damaged: {folder.root}",
            [path.name for path in sorted(damaged)],
            "remove them, and the run begins anew when it is resumed",
        )
    return None


def resumed_checkpoint(path: Path, training: bool) -> Path | None:
    """The checkpoint that ``path`` means: itself, or the newest of a run; None to begin anew.

    Raises:
        MissingFileError: there is nothing, or nothing to evaluate.
        UserError: it is a folder, and no run's.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise MissingFileError(path, "checkpoint or run folder to resume from")
    folder = RunFolder(path)
    if not folder.is_run and not folder.has_checkpoint:
        raise UserError(f"The folder holds no run: {path}", hint="give a run folder, or a checkpoint in it")
    found = newest_checkpoint(folder, training)
    if found is None and not training:
        raise MissingFileError(folder.last_checkpoint, "checkpoint", "the run had not written one yet")
    return found


def set_later_aside(folder: RunFolder, resumed: Path) -> None:
    """Move the checkpoints with more steps than the one that a run goes back to into ckpts/later, so that
    they are not taken for the newest ones from here on.
    """
    step = _step(resumed)
    for path in folder.checkpoints if folder.holds(resumed) else []:
        later = _step(path)
        if path.resolve() != resumed.resolve() and later > step:
            target = _free_name(folder.ckpts / "later" / f"{later}-{path.name}")
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
            log.info("the run goes back to step %d: %s is moved to ckpts/later", step, path.name)


def say_changes(folder: RunFolder, cfg: ExperimentConfig) -> None:
    """Tell which settings differ from those that the run in ``folder`` has had so far."""
    changes = changed_settings(folder, cfg)
    if changes:
        log.info("the run goes on with other settings than before:\n%s", "\n".join(_listed(changes)))


def check_finished(folder: RunFolder, cfg: ExperimentConfig, stage: str, index: int) -> None:
    """Refuse changes of the settings of a stage that is finished.

    Raises:
        UserError: they would be written down and used nowhere.
    """
    changes = changed_settings(folder, cfg)
    if changes:
        raise UserError(
            f"Stage {index} ({stage}) is finished: what was changed in it would have no effect.",
            _listed(changes),
            "change a later stage alone, stages.NAME.KEY=VALUE, or begin anew in another folder",
        )


def changed_settings(folder: RunFolder, cfg: ExperimentConfig) -> list[str]:
    """A line ``key: before -> now`` for each setting that differs from the recipe in ``folder``."""
    if not folder.recipe.is_file():
        return []
    before, now = (_flat(OmegaConf.create(text)) for text in (folder.recipe.read_text(), cfg.to_yaml()))
    keys = [key for key in {**before, **now} if key.partition(".")[0] not in PLACES]
    return [
        f"{key}: {_shown(before, key)} -> {_shown(now, key)}"
        for key in keys
        if key not in before or key not in now or not _same(before[key], now[key])
    ]


def _step(path: Path) -> int:
    """The step of a checkpoint; -1 where it cannot be read."""
    try:
        return int(load_checkpoint(path, mapped=True).get("global_step", -1))
    except UserError:
        return -1


def _free_name(path: Path) -> Path:
    """The path, with a number if something of that name is there already."""
    names = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return next(one for one in chain([path], names) if not one.exists())


def _told(path: Path, damaged: list[Path]) -> Path:
    for one in damaged:
        log.warning("%s is damaged and is not used; the run goes on from %s", one.name, path.name)
    return path


def _listed(changes: list[str]) -> list[str]:
    more = [f"and {len(changes) - SHOWN} more"] if len(changes) > SHOWN else []
    return [*changes[:SHOWN], *more]


def _flat(config: Any) -> dict[str, Any]:
    """Values by dotted key; a list, or a mapping without content, is one value."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            flat[prefix] = value

    walk("", OmegaConf.to_container(config, resolve=False))
    return flat


def _same(before: Any, now: Any) -> bool:
    """Whether two values are; checkpoints inside a run are, wherever the run has been moved."""
    if isinstance(before, str) and isinstance(now, str) and "ckpts" in Path(now).parts:
        return Path(before).parts[-4:] == Path(now).parts[-4:]
    return bool(before == now)


def _shown(values: Mapping[str, Any], key: str) -> str:
    text = repr(values[key]) if key in values else "not set"
    return text if len(text) <= 60 else f"{text[:57]}..."

"""The weights of a checkpoint, and whether a model can take them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from maquette.core.errors import MissingFileError, UserError
from maquette.core.loading import load_checkpoint

SHOWN = 5
"""Weights that an error names."""


LATEST = "LAST"
"""What stands after the ``@`` of a run folder's name for the newest of that tag."""


def latest(path: str | Path) -> Path:
    """The path itself, or, where a folder of it ends in ``@LAST``, in the newest folder of that tag.

    Blanks of such a path are underscores, as in the names of run folders.

    Raises:
        MissingFileError: there is no run of this tag.
    """
    text = str(path)
    mark = f"@{LATEST}"
    if mark not in text:
        return Path(path)
    head, _, tail = text.replace(" ", "_").partition(mark)
    start = Path(head)
    runs = sorted(one for one in start.parent.glob(f"{start.name}@*") if one.is_dir())
    if not runs:
        raise MissingFileError(text, "run of this tag", hint=f"looked for {start}@...")
    return Path(f"{runs[-1]}{tail}")


def averaged_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a checkpoint as evaluation uses them: the running average where one was kept."""
    average = checkpoint.get("callbacks", {}).get("EMA", {}).get("average", {})
    return {**checkpoint["state_dict"], **average}


def run_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint that a run has written.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is damaged, or comes from something else.
    """
    content = load_checkpoint(path)
    if not isinstance(content.get("state_dict"), Mapping):
        raise UserError(f"The checkpoint {path} is not one of a run: it has no state_dict.")
    return content


def check_fits(
    model: nn.Module, state: Mapping[str, Tensor], path: str | Path, partial: bool = False
) -> None:
    """Refuse the weights of a checkpoint that are those of another model.

    Args:
        model: what is to take them.
        state: the weights, by name.
        path: where they are from.
        partial: some may be missing, as long as one is there.

    Raises:
        UserError: a weight has another shape, one that no module lists in ``may_be_missing`` is missing, or
            (partial) all are.
    """
    own = model.state_dict()
    free, resized = free_rows(model), _resized_by_loading(model)
    optional = _listed(model, "may_be_missing")
    missing = [name for name in own if name not in state]
    wrong = [
        f"{name}: {tuple(state[name].shape)}, and {tuple(value.shape)} is asked for"
        for name, value in own.items()
        if name in state
        and not _same_shape(state[name], value, name in free)
        and (name in free or not name.startswith(resized))
    ]
    if not partial or len(missing) == len(own):
        wrong += [f"{name}: missing" for name in missing if name not in optional]
    if wrong:
        more = [f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
        raise UserError(
            f"The weights of {path} do not fit this recipe.",
            [*wrong[:SHOWN], *more],
            "use the recipe and the settings of the run that wrote them",
        )


def _resized_by_loading(model: nn.Module) -> tuple[str, ...]:
    """Prefixes of the modules that load their weights in a way of their own: clouds and meshes take on the
    size of what was saved.
    """
    own_way = [
        name
        for name, module in model.named_modules()
        if type(module)._load_from_state_dict is not nn.Module._load_from_state_dict
        or module._load_state_dict_pre_hooks
    ]
    return tuple(f"{name}." if name else "" for name in own_way)


def free_rows(model: nn.Module) -> set[str]:
    """Weights whose number of rows is the checkpoint's to decide, by qualified name.

    A module lists its own ones in ``free_rows`` and takes the number when it is loaded.
    """
    return _listed(model, "free_rows")


def _listed(model: nn.Module, attribute: str) -> set[str]:
    """Qualified names of the weights that modules list in an attribute of theirs."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        for name in getattr(module, attribute, ())
    }


def _same_shape(stored: Tensor, own: Tensor, any_rows: bool) -> bool:
    if any_rows and stored.ndim == own.ndim:
        return stored.shape[1:] == own.shape[1:]
    return stored.shape == own.shape

"""The weights of a checkpoint, and whether a model can take them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from maquette.core.errors import UserError
from maquette.core.loading import load_checkpoint

SHOWN = 5
"""Weights that an error names."""


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
    """Find out that the weights of ``path`` are those of another model.

    Args:
        model: what is to take them.
        state: the weights, by name.
        path: where they are from.
        partial: some may be missing, as long as one is there.

    Raises:
        UserError: a weight of the model is missing, has another shape, or (partial) all are missing.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    wrong = [
        f"{name}: {tuple(state[name].shape)}, and {tuple(value.shape)} is asked for"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    if not partial or len(missing) == len(own):
        wrong += [f"{name}: missing" for name in missing]
    if wrong:
        more = [f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
        raise UserError(
            f"The weights of {path} do not fit this recipe.",
            [*wrong[:SHOWN], *more],
            "use the recipe and the settings of the run that wrote them",
        )

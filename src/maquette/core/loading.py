"""Reading checkpoints: tensors and plain values only, never arbitrary pickles."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maquette.core.errors import MissingFileError, UserError


@dataclass(frozen=True)
class ModuleWeights:
    """The weights of one module of a checkpoint."""

    state_dict: dict[str, Tensor]
    """Parameters and buffers, named as the module names them."""
    epoch: int
    """Epoch of the checkpoint."""
    global_step: int
    """Optimiser step of the checkpoint."""


def load_checkpoint(path: str | Path, map_location: str = "cpu") -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is damaged, or holds objects that could run code when loaded.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "checkpoint")
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as err:
        raise _unreadable(path, holds_code="global" in str(err).lower()) from err
    except (RuntimeError, EOFError, ValueError) as err:
        raise _unreadable(path, holds_code=False) from err
    if not isinstance(content, dict):
        raise UserError(f"The checkpoint {path} holds a {type(content).__name__}, not a mapping.")
    return content


def _unreadable(path: Path, holds_code: bool) -> UserError:
    if holds_code:
        reason = "it holds Python objects besides tensors and numbers, and loading those could run code"
        return UserError(f"The checkpoint {path} was refused: {reason}.")
    return UserError(f"The checkpoint {path} cannot be read: it is damaged, or no checkpoint.")


def load_module_weights(
    path: str | Path, module_name: str | None = None, map_location: str = "cpu"
) -> ModuleWeights:
    """The weights below `module_name` ("geometry") of a checkpoint; all of them when it is None.

    Raises:
        UserError: the checkpoint has no such module.
    """
    content = load_checkpoint(path, map_location)
    state = content.get("state_dict", content)
    if module_name:
        prefix = f"{module_name}."
        known = sorted({key.partition(".")[0] for key in state})
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if not state:
            raise UserError(
                f"The checkpoint {path} has no weights of {module_name!r}.", [f"it has: {', '.join(known)}"]
            )
    return ModuleWeights(dict(state), int(content.get("epoch", 0)), int(content.get("global_step", 0)))

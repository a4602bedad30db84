"""Reading checkpoints: tensors and plain values only, never arbitrary pickles."""

import pickle
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maquette.core.errors import MissingFileError, UserError

_ZIP = b"PK"
"""How an archive begins."""


@dataclass(frozen=True)
class ModuleWeights:
    """The weights of one module of a checkpoint."""

    state_dict: dict[str, Tensor]
    """Parameters and buffers, named as the module names them."""
    epoch: int
    """Epoch of the checkpoint."""
    global_step: int
    """Optimiser step of the checkpoint."""


def load_checkpoint(path: str | Path, map_location: str = "cpu", *, mapped: bool = False) -> dict[str, Any]:
    """The content of a checkpoint.

    Args:
        path: the file.
        map_location: where its tensors go.
        mapped: look at the numbers of it only: tensors stay in the file until they are used, and their bytes
            are not checked.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is damaged, or holds objects that could run code when loaded.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "checkpoint")
    if not (zipfile.is_zipfile(path) if mapped else is_whole(path)):
        raise _unreadable(path, holds_code=False)
    try:
        content = torch.load(path, map_location=map_location, weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as err:
        raise _unreadable(path, holds_code="global" in str(err).lower()) from err
    except (RuntimeError, EOFError, ValueError) as err:
        raise _unreadable(path, holds_code=False) from err
    if not isinstance(content, dict):
        raise UserError(f"The checkpoint {path} holds a {type(content).__name__}, not a mapping.")
    return content


def is_whole(path: Path) -> bool:
    """Whether every byte of a checkpoint is as it was written: the checksums of its parts agree.

    Files of torch's format from before 1.6 have no checksums; they are left to its own reader.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_ZIP)) != _ZIP:
                return path.stat().st_size > 0
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, zlib.error):
        return False


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

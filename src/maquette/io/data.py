"""Arrays, trees of plain values and tensors in and out: npy, npz, json, safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from maquette.core.errors import MissingFileError, UserError
from maquette.io.writing import mismatch, whole_file

Array = Tensor | NDArray[Any]


def write_npy(path: str | Path, array: Array) -> Path:
    """Write one array as ``.npy``."""
    path = Path(path)
    stored = _numpy(array)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, stored, allow_pickle=False)
    return path


def write_npz(path: str | Path, arrays: Mapping[str, Array]) -> Path:
    """Write named arrays as a compressed ``.npz``; the same arrays always give the same bytes."""
    path = Path(path)
    stored: dict[str, Any] = {name: _numpy(array) for name, array in arrays.items()}
    with whole_file(path) as temporary:
        with temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **stored)
        if read_npz(temporary).keys() != stored.keys():
            raise mismatch(path, "names", sorted(stored), sorted(read_npz(temporary)))
    return path


def read_npz(path: str | Path) -> dict[str, NDArray[Any]]:
    """Named arrays of an ``.npz``; pickled objects inside are refused."""
    with np.load(_existing(path, "array file"), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def read_npy(path: str | Path) -> NDArray[Any]:
    """The array of an ``.npy``; pickled objects are refused."""
    array: NDArray[Any] = np.load(_existing(path, "array file"), allow_pickle=False)
    return array


def write_json(path: str | Path, value: Any) -> Path:
    """Write plain values, tensors and paths as JSON with two blanks of indent, keys in the order given.

    Raises:
        UserError: something in `value` has no form in JSON.
    """
    path = Path(path)
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, default=plain)
    except (TypeError, ValueError) as err:
        raise UserError(f"Not everything in this has a form in JSON: {path}", [str(err)]) from err
    with whole_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def read_json(path: str | Path) -> Any:
    """The value of a JSON file.

    Raises:
        UserError: the text is not JSON; the place is named.
    """
    path = _existing(path, "JSON file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise UserError(f"{path} is not JSON.", [str(err)]) from err


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write named tensors as ``.safetensors``; tensors that share memory are written apart."""
    path = Path(path)
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with whole_file(path) as temporary:
        safetensors.torch.save_file(stored, temporary, metadata=dict(metadata) if metadata else None)
        again = read_safetensors(temporary)
        if again.keys() != stored.keys():
            raise mismatch(path, "names", sorted(stored), sorted(again))
    return path


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Named tensors of a ``.safetensors`` file, on the CPU.

    Raises:
        UserError: the file is damaged or something else.
    """
    path = _existing(path, "weights file")
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as err:
        raise UserError(f"{path} is not a safetensors file, or it is damaged.", [str(err)]) from err
    return tensors


def plain(value: Any) -> Any:
    """A tensor, array, number or path as a value that JSON has (the `default` hook of `json.dumps`)."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Path | torch.device | torch.dtype):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _numpy(array: Array) -> NDArray[Any]:
    values: NDArray[Any] = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
    return values


def _existing(path: str | Path, what: str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, what)
    return path

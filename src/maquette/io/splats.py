"""Clouds of Gaussians in the PLY layout of the field: x y z nx ny nz f_dc_* f_rest_* opacity scale_* rot_*.

Opacities are stored as logits and scales as logarithms; colours of degree above 0 channel by channel. Axes
are the world's (z up, front +x).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from maquette.core.errors import RunFailed, UserError
from maquette.io.ply import Columns, ply_bytes, read_columns
from maquette.io.writing import mismatch, whole_file
from maquette.ops.gaussians import FLAT, Gaussians

_POSITION, _NORMAL = ("x", "y", "z"), ("nx", "ny", "nz")
_DC = ("f_dc_0", "f_dc_1", "f_dc_2")
_SCALE, _ROTATION = ("scale_0", "scale_1", "scale_2"), ("rot_0", "rot_1", "rot_2", "rot_3")
_NEEDED = (*_POSITION, *_DC, "opacity", *_SCALE, *_ROTATION)
_MARGIN = 1e-6
"""Opacities are kept so far from 0 and 1 that their logits stay finite."""


def write_splats(gaussians: Gaussians, path: str | Path) -> Path:
    """Write a binary PLY that viewers of splats open; reopened with trimesh and compared before it is saved.

    Raises:
        RunFailed: there are no Gaussians, or values that are not finite, or the file reads back differently.
        UserError: a place that cannot be written to.
    """
    path = Path(path)
    columns = _columns(gaussians)
    if gaussians.n == 0:
        raise RunFailed(f"There is nothing to write: the cloud has no Gaussians ({path.name}).")
    if not all(np.isfinite(column).all() for column in columns.values()):
        raise RunFailed(f"The Gaussians have values that are not finite and were not written: {path.name}")
    with whole_file(path) as temporary:
        temporary.write_bytes(ply_bytes(columns))
        _check(columns, temporary, path)
    return path


def read_splats(path: str | Path) -> Gaussians:
    """The Gaussians of a PLY.

    Rows that are not finite are left out. Where each row has two scales, the Gaussians are flat: the third
    scale is `FLAT`.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is not a PLY, ends early, lacks a field, or holds no Gaussians.
    """
    columns = read_columns(path)
    if _SCALE[2] not in columns and _SCALE[1] in columns:
        columns = {**columns, _SCALE[2]: np.full_like(columns[_SCALE[1]], math.log(FLAT))}
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise UserError(
            f"{path} holds no Gaussians: it lacks {', '.join(missing)}.",
            [f"it has: {', '.join(columns) or 'nothing'}"],
        )
    gaussians = Gaussians(
        means=_stacked(columns, _POSITION),
        rotations=torch.nn.functional.normalize(_stacked(columns, _ROTATION), dim=-1),
        scales=_stacked(columns, _SCALE).exp(),
        opacities=torch.sigmoid(_stacked(columns, ("opacity",)))[:, 0],
        sh=_coefficients(columns, path),
    )
    good = gaussians[_finite(gaussians)]
    if good.n == 0:
        raise UserError(f"{path} holds no Gaussians.")
    return good


def _columns(gaussians: Gaussians) -> Columns:
    rest = gaussians.sh[:, 1:].mT.flatten(start_dim=1)
    tables = {
        _POSITION: gaussians.means,
        _NORMAL: torch.zeros_like(gaussians.means),
        _DC: gaussians.sh[:, 0],
        tuple(f"f_rest_{k}" for k in range(rest.shape[1])): rest,
        ("opacity",): torch.logit(gaussians.opacities, eps=_MARGIN)[:, None],
        _SCALE: gaussians.scales.log(),
        _ROTATION: torch.nn.functional.normalize(gaussians.rotations, dim=-1),
    }
    return {name: column for names, values in tables.items() for name, column in _split(names, values)}


def _split(names: tuple[str, ...], values: Float[Tensor, "N C"]) -> list[tuple[str, NDArray[Any]]]:
    array = values.detach().cpu().numpy().astype(np.float32)
    return [(name, array[:, k]) for k, name in enumerate(names)]


def _stacked(columns: Columns, names: tuple[str, ...]) -> Float[Tensor, "N C"]:
    stacked = np.stack([columns[name] for name in names], axis=-1)
    return torch.from_numpy(stacked.astype(np.float32))


def _coefficients(columns: Columns, path: str | Path) -> Float[Tensor, "N K 3"]:
    names = tuple(name for name in columns if name.startswith("f_rest_"))
    k = len(names) // 3 + 1
    if len(names) % 3 or math.isqrt(k) ** 2 != k:
        raise UserError(
            f"{path} has {len(names)} fields f_rest_*, which no degree of spherical harmonics has.",
            ["degrees 0 to 3 have 0, 9, 24 and 45"],
        )
    first = _stacked(columns, _DC)[:, None]
    if not names:
        return first
    rest = _stacked(columns, tuple(f"f_rest_{i}" for i in range(len(names))))
    return torch.cat([first, rest.reshape(len(first), 3, k - 1).mT], dim=1)


def _finite(gaussians: Gaussians) -> Tensor:
    rows = [gaussians.means, gaussians.rotations, gaussians.scales, gaussians.opacities[:, None]]
    values = torch.cat([*rows, gaussians.sh.flatten(start_dim=1)], dim=1)
    return torch.isfinite(values).all(dim=1)


def _check(columns: Columns, written: Path, path: Path) -> None:
    """Compare with what trimesh reads, which shares nothing with the writer."""
    loaded: Any = trimesh.load(written, process=False)
    found = loaded.metadata["_ply_raw"]["vertex"]["data"]
    for name, values in columns.items():
        if not np.array_equal(np.asarray(found[name]).reshape(-1), values):
            raise mismatch(path, name, len(values), len(found[name]))

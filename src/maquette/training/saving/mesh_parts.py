"""A mesh from what a system has: plain arrays, and maps one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from maquette.core.errors import UserError
from maquette.io.textures import BASE_COLOR, METALLIC_ROUGHNESS, NORMAL, SPECULAR, pack_metallic_roughness
from maquette.ops.mesh import Mesh


def mesh_of(positions: Any, faces: Any, uvs: Any = None, uv_faces: Any = None, **attributes: Any) -> Mesh:
    """A mesh of plain arrays: (V, 3), (F, 3), and where there are any (U, 2), (F, 3).

    Raises:
        UserError: other shapes, or an index that points nowhere.
    """
    vertices = _rows(positions, 3, torch.float32, "positions of vertices")
    corners = _rows(faces, 3, torch.int64, "faces")
    _check_indices(corners, len(vertices), "faces")
    if uvs is None or uv_faces is None:
        return Mesh(vertices, corners, **attributes)
    coordinates = _rows(uvs, 2, torch.float32, "texture coordinates")
    uv_corners = _rows(uv_faces, 3, torch.int64, "corners of the texture")
    _check_indices(uv_corners, len(coordinates), "corners of the texture")
    if len(uv_corners) != len(corners):
        raise UserError(f"{len(corners)} faces have {len(uv_corners)} in the texture.")
    return Mesh(vertices, corners, uvs=coordinates, uv_faces=uv_corners, **attributes)


def texture_maps(
    mesh: Mesh,
    color: Tensor | None = None,
    specular: Tensor | None = None,
    bump: Tensor | None = None,
    metallic: Tensor | None = None,
    roughness: Tensor | None = None,
) -> dict[str, Tensor]:
    """The mesh's textures and the given ones, packed as glTF does (green roughness, blue metallic)."""
    given = {BASE_COLOR: color, SPECULAR: specular, NORMAL: bump}
    maps = mesh.texture | {name: one for name, one in given.items() if one is not None}
    if metallic is not None or roughness is not None:
        metal, rough = (
            None if one is None else one.reshape(*one.shape[:2], -1)[..., :1] for one in (metallic, roughness)
        )
        maps[METALLIC_ROUGHNESS] = pack_metallic_roughness(metal, rough)
    return maps


def _rows(values: Any, width: int, dtype: torch.dtype, what: str) -> Tensor:
    try:
        rows = torch.as_tensor(np.asarray(values), dtype=dtype)
    except (TypeError, ValueError) as err:
        raise UserError(f"The {what} of a mesh are numbers, not {type(values).__name__}.") from err
    if rows.ndim != 2 or rows.shape[1] != width:
        raise UserError(f"The {what} of a mesh have the shape (N, {width}), not {tuple(rows.shape)}.")
    return rows


def _check_indices(indices: Tensor, count: int, what: str) -> None:
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < count:
        raise UserError(
            f"The {what} of a mesh point at {int(indices.min())} to {int(indices.max())}; there are {count}."
        )

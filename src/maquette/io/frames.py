"""Axes and units of files: the world is z up with its front at +x, and a world unit is a metre."""

from __future__ import annotations

from typing import Literal

from maquette.core.errors import UserError
from maquette.io.gltf import from_gltf_axes, to_gltf_axes
from maquette.ops.mesh import Mesh

UpAxis = Literal["y", "z"]

UNITS = {"m": 1.0, "dm": 0.1, "cm": 0.01, "mm": 0.001, "in": 0.0254, "ft": 0.3048}
"""Length of a unit of a file, metres."""


def to_file(mesh: Mesh, up: str = "z", units: str = "m") -> Mesh:
    """World positions as a file stores them; y up faces +Z, as in glTF.

    Raises:
        UserError: another axis or unit.
    """
    check_frame(up, units)
    vertices = to_gltf_axes(mesh.vertices) if up == "y" else mesh.vertices
    return mesh if up == "z" and units == "m" else mesh.replace(vertices=vertices / UNITS[units])


def from_file(mesh: Mesh, up: str = "z", units: str = "m") -> Mesh:
    """Stored positions in the world frame: the inverse of `to_file`; errors as there."""
    check_frame(up, units)
    vertices = from_gltf_axes(mesh.vertices) if up == "y" else mesh.vertices
    return mesh if up == "z" and units == "m" else mesh.replace(vertices=vertices * UNITS[units])


def check_frame(up: str, units: str) -> None:
    """Refuse an axis that is neither y nor z, and a unit that is not in `UNITS`.

    Raises:
        UserError: naming what would do.
    """
    if up not in ("y", "z"):
        raise UserError(f"The up axis of a file is y or z, not {up!r}.")
    if units not in UNITS:
        raise UserError(f"Units of a file are {', '.join(UNITS)}, not {units!r}.")

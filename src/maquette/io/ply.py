"""PLY files (Turk 1994, the Stanford polygon format): what one holds, and points in and out.

A PLY may be a mesh, a cloud of points or a cloud of Gaussians; `ply_kind` tells them apart by their header.
Axes are as in the file: the world's, z up and front +x.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from maquette.core.errors import MissingFileError, RunFailed, UserError
from maquette.io.writing import mismatch, whole_file
from maquette.ops.point_cloud import PointCloud

log = logging.getLogger(__name__)

Columns = dict[str, NDArray[Any]]
"""One number a row, by the name of the property."""

POSITION, NORMAL, COLOR = ("x", "y", "z"), ("nx", "ny", "nz"), ("red", "green", "blue")
SPLAT = ("f_dc_0", "opacity", "scale_0", "rot_0")
"""Properties that only clouds of Gaussians have."""

_LONGEST_HEADER = 2**16
_LAYOUTS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_NAMES = {"f4": "float", "f8": "double", "u1": "uchar", "u2": "ushort", "i4": "int"}
_COLOR_NAMES = (COLOR, ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))


@dataclass(frozen=True)
class PlyElement:
    """One table of a PLY file."""

    name: str
    """For example "vertex"."""
    count: int
    """Rows."""
    properties: dict[str, str]
    """numpy's code for the type of each property; "list" where rows differ in length."""


@dataclass(frozen=True)
class PlyHeader:
    """What a PLY file says about itself."""

    layout: str
    """ascii, binary_little_endian or binary_big_endian."""
    elements: tuple[PlyElement, ...]
    """Its tables, in their order."""
    size: int
    """Bytes before the first table."""

    def element(self, name: str) -> PlyElement | None:
        """The table of that name."""
        return next((one for one in self.elements if one.name == name), None)


def read_points(path: str | Path) -> PointCloud:
    """The vertices of any PLY as points, with colours and normals where it has them; axes as in the file.

    Points without finite coordinates, which scanners leave where they saw nothing, are left out.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is not a PLY, lacks a field, ends early, or holds no points.
    """
    columns = read_columns(path)
    missing = [name for name in POSITION if name not in columns]
    if missing:
        raise UserError(
            f"{path} holds no points: its vertices lack {', '.join(missing)}.",
            [f"they have: {', '.join(columns) or 'nothing'}"],
        )
    cloud = PointCloud(_vectors(columns, POSITION), _colors(columns), _unit(columns))
    finite = torch.isfinite(cloud.points).all(dim=1)
    if not bool(finite.any()):
        raise UserError(f"{path} holds no points.")
    if not bool(finite.all()):
        log.warning("%d points without finite coordinates were left out.", int((~finite).sum()))
    return cloud[finite]


def write_points(cloud: PointCloud, path: str | Path, comments: Sequence[str] = ()) -> Path:
    """Write points as a binary PLY, colours as bytes; reopened with trimesh and compared before it is saved.

    Raises:
        RunFailed: there are no points, or some are not finite, or the file reads back differently.
        UserError: a place that cannot be written to.
    """
    path = Path(path)
    if cloud.n_points == 0 or not bool(torch.isfinite(cloud.points).all()):
        raise RunFailed(f"There are no points to write, or some are not finite ({path.name}).")
    columns = _split(POSITION, cloud.points, "f4")
    if cloud.normals is not None:
        columns |= _split(NORMAL, cloud.normals, "f4")
    if cloud.colors is not None:
        columns |= _split(COLOR, (cloud.colors.clamp(0, 1) * 255).round(), "u1")
    with whole_file(path) as temporary:
        temporary.write_bytes(ply_bytes(columns, comments))
        _check(cloud, temporary, path)
    return path


def ply_kind(path: str | Path) -> Literal["mesh", "points", "splats"]:
    """What a PLY file holds, told by its header; errors as in `read_header`."""
    header = read_header(path)
    vertex, face = header.element("vertex"), header.element("face")
    if vertex is not None and all(name in vertex.properties for name in SPLAT):
        return "splats"
    return "mesh" if face is not None and face.count > 0 else "points"


def read_header(path: str | Path) -> PlyHeader:
    """The header of a PLY file.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is not a PLY file.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "PLY file")
    with path.open("rb") as file:
        start = file.read(_LONGEST_HEADER)
    end = start.find(b"end_header")
    line_end = start.find(b"\n", end)
    if not start.startswith(b"ply") or end < 0 or line_end < 0:
        raise UserError(f"{path} is not a PLY file, or its header ends early.")
    try:
        layout, elements = _parsed(start[:end].decode("ascii", "replace").splitlines()[1:])
    except (ValueError, KeyError, IndexError) as err:
        raise UserError(f"The header of {path} cannot be understood.", [str(err)]) from err
    return PlyHeader(layout, elements, line_end + 1)


def read_columns(path: str | Path, element: str = "vertex") -> Columns:
    """The properties of one table that have one number a row, by name.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is not a PLY, has no such table, or ends before the table does.
    """
    header = read_header(path)
    before = 0
    for one in header.elements:
        if one.name == element and "list" not in one.properties.values():
            return _table(Path(path), header, one, before)
        if "list" in one.properties.values() and one.count:
            break
        before += one.count if header.layout == "ascii" else one.count * _row(header, one).itemsize
    raise UserError(f"{path} has no table {element!r} that can be read.")


def ply_bytes(columns: Mapping[str, NDArray[Any]], comments: Sequence[str] = ()) -> bytes:
    """A binary PLY file with one table of vertices."""
    row = np.dtype([(name, "<" + values.dtype.str[1:]) for name, values in columns.items()])
    rows = np.empty(len(next(iter(columns.values()))), row)
    for name, values in columns.items():
        rows[name] = values
    properties = [f"property {_NAMES[values.dtype.str[1:]]} {name}" for name, values in columns.items()]
    notes = [f"comment {' '.join(comment.split())}" for comment in comments]
    lines = ["ply", "format binary_little_endian 1.0", *notes, f"element vertex {len(rows)}", *properties]
    return ("\n".join([*lines, "end_header"]) + "\n").encode("ascii", "replace") + rows.tobytes()


def _parsed(lines: Sequence[str]) -> tuple[str, tuple[PlyElement, ...]]:
    layout, elements = "", list[PlyElement]()
    for words in (line.split() for line in lines):
        match words:
            case ["format", kind, *_] if kind in _LAYOUTS:
                layout = kind
            case ["element", name, count] if int(count) >= 0:
                elements.append(PlyElement(name, int(count), {}))
            case ["property", "list", _, _, name]:
                elements[-1].properties[name] = "list"
            case ["property", kind, name]:
                elements[-1].properties[name] = _TYPES[kind]
            case [] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise ValueError(f"unexpected line: {' '.join(words)[:80]}")
    if not layout:
        raise ValueError("it does not say its format")
    return layout, tuple(elements)


def _row(header: PlyHeader, element: PlyElement) -> np.dtype[Any]:
    order = _LAYOUTS[header.layout]
    return np.dtype([(name, order + code) for name, code in element.properties.items()])


def _table(path: Path, header: PlyHeader, element: PlyElement, before: int) -> Columns:
    """The rows of a table that begins `before` bytes (lines, in a text file) after the header."""
    with path.open("rb") as file:
        file.seek(header.size)
        if header.layout == "ascii":
            return _text_table(path, file.read(), element, before)
        file.seek(before, 1)
        row = _row(header, element)
        size, left = element.count * row.itemsize, max(path.stat().st_size - file.tell(), 0)
        if left < size:
            found = left // row.itemsize
            raise UserError(f"{path} ends early.", [f"{element.count} rows announced, {found} found"])
        data = file.read(size)
    rows = np.frombuffer(data, row)
    return {name: rows[name] for name in element.properties}


def _text_table(path: Path, text: bytes, element: PlyElement, before: int) -> Columns:
    lines = text.split(b"\n", before + element.count)[before : before + element.count]
    rows = [line.split() for line in lines]
    if len(rows) < element.count or any(len(row) < len(element.properties) for row in rows):
        raise UserError(f"{path} ends early, or has rows that are too short.")
    try:
        values = np.array([row[: len(element.properties)] for row in rows], dtype=np.float64)
    except ValueError as err:
        raise UserError(f"{path} has something else where a number should be.", [str(err)]) from err
    values = values.reshape(element.count, len(element.properties))
    return {name: values[:, k].astype(code) for k, (name, code) in enumerate(element.properties.items())}


def _vectors(columns: Columns, names: Sequence[str]) -> Float[Tensor, "N 3"]:
    stacked = np.stack([columns[name] for name in names], axis=-1)
    return torch.from_numpy(stacked.astype(np.float32))


def _colors(columns: Columns) -> Float[Tensor, "N 3"] | None:
    """Bytes and 16-bit numbers become [0, 1]; floats are taken to be there already."""
    for names in _COLOR_NAMES:
        if all(name in columns for name in names):
            kind = columns[names[0]].dtype
            scale = float(np.iinfo(kind).max) if kind.kind == "u" else 1.0
            return (_vectors(columns, names) / scale).clamp(0.0, 1.0)
    return None


def _unit(columns: Columns) -> Float[Tensor, "N 3"] | None:
    """Normals, unless none of them has a length."""
    if not all(name in columns for name in NORMAL):
        return None
    normals = torch.nan_to_num(_vectors(columns, NORMAL))
    return torch.nn.functional.normalize(normals, dim=-1) if bool((normals != 0).any()) else None


def _split(names: Sequence[str], values: Float[Tensor, "N 3"], kind: str) -> Columns:
    array = values.detach().cpu().numpy().astype(kind)
    return {name: array[:, k] for k, name in enumerate(names)}


def _check(cloud: PointCloud, written: Path, path: Path) -> None:
    """Compare with what trimesh reads, which shares nothing with the writer."""
    loaded: Any = trimesh.load(written, process=False)
    found = np.asarray(loaded.vertices, dtype=np.float32)
    if not np.array_equal(found, cloud.points.detach().cpu().numpy().astype(np.float32)):
        raise mismatch(path, "points", cloud.n_points, len(found))

"""Whether a mesh file is whole and what it says it is, before anything tries to understand it."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from maquette.core.errors import MissingFileError, UserError
from maquette.io.ply import ply_kind, read_columns

_GLB, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_STL_HEADER, _STL_FACE = 84, 50


def check_intact(path: Path) -> None:
    """Refuse what is no file, is cut off, or holds something else than a mesh; by suffix.

    A text that was cut between two lines, as an OBJ may be, cannot be told from a shorter one.

    Raises:
        MissingFileError: there is no such file.
        UserError: what is wrong with it.
    """
    check_exists(path)
    check = _CHECKS.get(path.suffix.lower())
    if check is not None:
        check(path)


def check_exists(path: Path) -> None:
    """Refuse a path with no file, or an empty one, behind it.

    Raises:
        MissingFileError: there is nothing.
        UserError: it is a folder, or empty.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a mesh file.", hint=_inside(path))
    if not path.is_file():
        raise MissingFileError(path, "mesh")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty.")


def _glb(path: Path) -> None:
    data = path.read_bytes()
    if len(data) < 12 or struct.unpack_from("<I", data)[0] != _GLB:
        raise UserError(f"{path} is not a GLB file.", hint="its first four bytes would be: glTF")
    version, total = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise UserError(f"{path} is a GLB of version {version}; version 2 is read.")
    if len(data) < total:
        raise UserError(f"{path} ends early.", [f"{total} bytes announced, {len(data)} found"])
    chunks = _chunks(path, data[:total])
    try:
        tree = json.loads(chunks.get(_JSON, b""))
    except ValueError as err:
        raise UserError(f"{path} is damaged: its description is not JSON.", [str(err)]) from err
    if not isinstance(tree, dict) or not isinstance(tree.get("meshes"), list):
        raise UserError(f"{path} holds no meshes.")
    _check_pictures(path, tree, chunks.get(_BIN, b""))


def _check_pictures(path: Path, tree: dict[str, Any], binary: bytes) -> None:
    """Every embedded PNG and JPEG can be decoded; of other kinds nothing is known here."""
    views = tree.get("bufferViews") or []
    for number, image in enumerate(tree.get("images") or []):
        if image.get("mimeType") not in ("image/png", "image/jpeg") or "bufferView" not in image:
            continue
        try:
            view = views[image["bufferView"]]
            start = view.get("byteOffset", 0)
            with Image.open(io.BytesIO(binary[start : start + view["byteLength"]])) as picture:
                picture.load()
        except (LookupError, TypeError, OSError, SyntaxError, ValueError) as err:
            raise UserError(f"Texture {number} in {path} cannot be read.", [str(err)]) from err


def _chunks(path: Path, data: bytes) -> dict[int, bytes]:
    chunks: dict[int, bytes] = {}
    place = 12
    while place + 8 <= len(data):
        length, kind = struct.unpack_from("<II", data, place)
        if place + 8 + length > len(data):
            raise UserError(f"{path} is damaged: a part reaches over its end.")
        chunks.setdefault(kind, data[place + 8 : place + 8 + length])
        place += 8 + length
    return chunks


def _ply(path: Path) -> None:
    kind = ply_kind(path)
    if kind == "splats":
        raise UserError(f"{path} holds Gaussians (splats), not a mesh.", hint="maquette convert --help")
    if kind == "points":
        raise UserError(
            f"{path} holds points and no faces.",
            hint="maquette mesh-from-points makes a mesh of points",
        )
    missing = {"x", "y", "z"} - read_columns(path).keys()
    if missing:
        raise UserError(f"The vertices of {path} lack {', '.join(sorted(missing))}.")


def _stl(path: Path) -> None:
    data = path.read_bytes()
    count = struct.unpack_from("<I", data, 80)[0] if len(data) >= _STL_HEADER else -1
    if len(data) == _STL_HEADER + _STL_FACE * count:
        return
    if data[:5].lower() == b"solid" and b"\0" not in data[:_STL_HEADER]:
        if b"endsolid" in data[-200:].lower():
            return
        raise UserError(f"{path} ends early.", ["a text STL ends in: endsolid"])
    expected = _STL_HEADER + _STL_FACE * max(count, 0)
    raise UserError(
        f"{path} is not an STL, or it ends early.", [f"bytes: {len(data)}, announced: {expected}"]
    )


def _usdz(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as package:
            broken = package.testzip()
    except Exception as err:  # zipfile raises many things when bytes are damaged
        raise UserError(f"{path} is not a USD stage (.usdz), or it ends early.", [str(err)]) from err
    if broken is not None:
        raise UserError(f"{path} is damaged.", [f"part: {broken}"])


def _inside(folder: Path) -> str | None:
    found = sorted(one.name for one in folder.iterdir() if one.suffix.lower() in _CHECKS)[:3]
    return f"did you mean {' or '.join(str(folder / name) for name in found)}?" if found else None


_CHECKS: dict[str, Callable[[Path], None]] = {".glb": _glb, ".ply": _ply, ".stl": _stl, ".usdz": _usdz}

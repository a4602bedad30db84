"""Meshes in and out; every file is reopened with an independent reader and compared before it is saved."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from maquette.core.errors import RunFailed, UserError
from maquette.io.bridge import GLTF_SUFFIXES, load, mesh_from_trimesh, mesh_to_trimesh
from maquette.io.frames import check_frame, from_file, to_file
from maquette.io.gltf import from_gltf_axes, glb_bytes, glb_extras, to_gltf_axes
from maquette.io.intact import check_intact
from maquette.io.obj import library_maps, obj_files
from maquette.io.readback import check_file
from maquette.io.repair import closed, open_places
from maquette.io.usd import USD_SUFFIXES, read_usd, write_usd
from maquette.io.writing import whole_file, whole_folder
from maquette.ops.mesh import Mesh, weld
from maquette.ops.mesh_health import is_closed, open_edges
from maquette.ops.point_cloud import painted

__all__ = [
    "MESH_SUFFIXES",
    "READ_SUFFIXES",
    "is_watertight",
    "mesh_from_trimesh",
    "mesh_to_trimesh",
    "painted",
    "read_mesh",
    "write_glb",
    "write_mesh",
    "write_obj",
]

log = logging.getLogger(__name__)

MESH_SUFFIXES = (".glb", ".obj", ".ply", ".stl", *USD_SUFFIXES)
"""Formats that are written."""
READ_SUFFIXES = (*MESH_SUFFIXES, ".gltf", ".off")
"""Formats that are read."""


def write_mesh(
    mesh: Mesh,
    path: str | Path,
    *,
    up: str | None = None,
    units: str = "m",
    repair: bool = False,
    **options: Any,
) -> list[Path]:
    """Write a mesh in the format that the suffix names; the files written, the mesh itself first.

    Args:
        mesh: in the world frame (z up, front +x, a unit is a metre).
        path: a file ending in one of `MESH_SUFFIXES`.
        up: axis of the file that points up; y faces +Z. None: y for a GLB, which glTF asks for, else z.
        units: of the file's coordinates, one of `frames.UNITS`; a GLB is in metres.
        repair: close an open surface before it goes into an STL.
        **options: of `write_glb`, `write_obj` or `write_usd`; formats without a material need none.

    Raises:
        UserError: another suffix, axis or unit, an open surface for an STL, or a place that cannot be written
            to.
        RunFailed: nothing to write, a full disk, or a file that reads back differently.
        MissingBackendError: USD is asked for and its package is not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        kinds = ", ".join(MESH_SUFFIXES)
        raise UserError(f"Meshes are written as {kinds}, not {suffix or 'without a suffix'}: {path}")
    check_frame(up or "z", units)
    _check_writable(mesh, path)
    if suffix == ".glb":
        _check_gltf_frame(up, units)
        return [write_glb(mesh, path, **options)]
    if suffix in USD_SUFFIXES:
        return write_usd(mesh, path, up=up or "z", units=units, **options)
    if suffix == ".obj":
        return write_obj(mesh, path, up=up or "z", units=units, **options)
    solid = _solid(mesh, path, repair) if suffix == ".stl" else painted(mesh)
    return [_write_plain(to_file(solid, up or "z", units), path)]


def write_glb(
    mesh: Mesh, path: str | Path, *, unlit: bool = False, texture_format: str = "png", quality: int = 95
) -> Path:
    """Write a binary glTF with embedded textures, y up and facing +Z; options as in `gltf.glb_bytes`.

    Raises:
        RunFailed: nothing to write, a full disk, or a file that reads back differently; nothing is left.
        UserError: a place that cannot be written to.
    """
    path = Path(path)
    _check_writable(mesh, path)
    with whole_file(path) as temporary:
        temporary.write_bytes(glb_bytes(mesh, unlit, texture_format, quality))
        check_file(mesh.replace(vertices=to_gltf_axes(mesh.vertices)), temporary, path, tolerance=0.0)
    return path


def write_obj(
    mesh: Mesh,
    path: str | Path,
    *,
    material: bool = True,
    normals: bool = False,
    texture_format: str = "jpg",
    quality: int = 95,
    up: str = "z",
    units: str = "m",
) -> list[Path]:
    """Write an OBJ, and beside it the material library and textures if the mesh has any.

    Returns all files written, the OBJ first; options as in `obj.obj_files` and `write_mesh`, errors as in
    `write_glb`.
    """
    path = Path(path)
    _check_writable(mesh, path)
    mesh = to_file(mesh, up, units)
    files = obj_files(
        mesh,
        path.stem,
        material=material,
        normals=normals,
        texture_format=texture_format,
        quality=quality,
        frame=f"{up} up, front {'+x' if up == 'z' else '+z'}, in {units}",
    )
    with whole_folder(path) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        expected = mesh if material else mesh.replace(texture={})
        check_file(expected, folder / path.name, path, tolerance=1e-6)
    return [path.parent / name for name in files]


def read_mesh(path: str | Path, *, up: str | None = None, units: str | None = None) -> Mesh:
    """A mesh in the world frame (z up, front +x), whatever the axes of its format.

    A GLB is y-up facing +Z and in metres, as glTF says; USD says its axes and units itself. Of the other
    formats nobody knows: they are taken as they are unless `up` and `units` tell. Corners that a file had to
    split for their texture coordinates are welded by position.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is not a mesh, is damaged, has no faces, or a texture of it cannot be read.
        MissingBackendError: it is USD, whose package is not installed.
    """
    path = Path(path)
    check_intact(path)
    suffix = path.suffix.lower()
    if suffix not in READ_SUFFIXES:
        kinds = ", ".join(READ_SUFFIXES)
        raise UserError(f"Meshes are read from {kinds}, not {suffix or 'without a suffix'}: {path}")
    if suffix in USD_SUFFIXES:
        return read_usd(path, up=up, units=units)
    if suffix in GLTF_SUFFIXES:
        _check_gltf_frame(up, units or "m")
        mesh = mesh_from_trimesh(load(path), linear=True)
        extras = glb_extras(path.read_bytes()) if suffix == ".glb" else {}
        return mesh.replace(vertices=from_gltf_axes(mesh.vertices), extras=extras)
    maps = library_maps(path) if suffix == ".obj" else {}
    mesh = mesh_from_trimesh(load(path))
    if maps and mesh.has_uvs:
        mesh = mesh.replace(texture=maps)
    return from_file(mesh, up or "z", units or "m")


def is_watertight(mesh: Mesh) -> bool:
    """Every edge has exactly two faces, and they agree on which side is out; equal positions are one."""
    return is_closed(weld(Mesh(mesh.vertices, mesh.faces)))


def _write_plain(mesh: Mesh, path: Path) -> Path:
    with whole_file(path) as temporary:
        content: Any = mesh_to_trimesh(mesh).export(file_type=path.suffix.lower()[1:])
        temporary.write_bytes(content)
        plain = mesh.replace(texture={}, uvs=None, uv_faces=None)
        expected = plain if path.suffix.lower() == ".ply" else plain.replace(vertex_colors=None)
        check_file(expected, temporary, path, tolerance=1e-6)
    return path


def _solid(mesh: Mesh, path: Path, repair: bool) -> Mesh:
    """What an STL may hold: a surface that encloses something, closed by repair where that was asked for."""
    bare = weld(Mesh(mesh.vertices, mesh.faces))
    if repair and not is_closed(bare):
        log.info("The surface is closed before it goes into %s.", path.name)
        return closed(bare)
    if len(open_edges(bare)) > 0:
        raise UserError(
            f"{path.name} was not written: an STL stands for a solid, and this surface is open.",
            open_places(bare),
            hint="repair it (maquette convert --repair, write_mesh(repair=True)), or write .ply or .glb",
        )
    return mesh


def _check_gltf_frame(up: str | None, units: str) -> None:
    if up == "z" or units != "m":
        raise UserError(
            "glTF is y up and in metres, by definition.",
            hint="leave --up and --units away for .glb and .gltf",
        )


def _check_writable(mesh: Mesh, path: Path) -> None:
    if mesh.n_faces == 0:
        raise RunFailed(
            f"There is nothing to write: the mesh has no faces ({path.name}).",
            hint="the surface may lie below the isosurface threshold, or everything was removed as too small",
        )
    if not bool(torch.isfinite(mesh.vertices[mesh.faces]).all()):
        raise RunFailed(f"The mesh has positions that are not finite and was not written: {path.name}")

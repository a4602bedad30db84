"""Meshes in and out; every file is reopened with an independent reader and compared before it is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from maquette.core.errors import MissingFileError, RunFailed, UserError
from maquette.io.gltf import from_gltf_axes, glb_bytes, glb_extras, to_gltf_axes
from maquette.io.obj import obj_files
from maquette.io.textures import BASE_COLOR, textures_of
from maquette.io.writing import mismatch, whole_file, whole_folder
from maquette.ops.color import linear_to_srgb
from maquette.ops.mesh import Mesh, triangles, weld

MESH_SUFFIXES = (".glb", ".obj", ".ply", ".stl")
"""Formats that are written."""


def write_mesh(mesh: Mesh, path: str | Path, **options: Any) -> list[Path]:
    """Write a mesh in the format that the suffix names; the files written, the mesh itself first.

    Args:
        mesh: in the world frame (z up, front +x).
        path: a file ending in ``.glb``, ``.obj``, ``.ply`` or ``.stl``; the first two take `options`.
        **options: of `write_glb` or `write_obj`.

    Raises:
        UserError: another suffix, or a place that cannot be written to.
        RunFailed: nothing to write, a full disk, or a file that reads back differently.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".glb":
        return [write_glb(mesh, path, **options)]
    if suffix == ".obj":
        return write_obj(mesh, path, **options)
    if suffix in MESH_SUFFIXES:
        return [_write_plain(mesh, Path(path))]
    raise UserError(
        f"Meshes are written as {', '.join(MESH_SUFFIXES)}, not {suffix or 'without a suffix'}: {path}"
    )


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
        _check_file(mesh, temporary, path, to_gltf_axes, tolerance=0.0)
    return path


def write_obj(
    mesh: Mesh,
    path: str | Path,
    *,
    material: bool = True,
    normals: bool = False,
    texture_format: str = "jpg",
    quality: int = 95,
) -> list[Path]:
    """Write an OBJ, and beside it the material library and textures if the mesh has any; z up, front +x.

    Returns all files written, the OBJ first; options as in `obj.obj_files`, errors as in `write_glb`.
    """
    path = Path(path)
    _check_writable(mesh, path)
    files = obj_files(
        mesh, path.stem, material=material, normals=normals, texture_format=texture_format, quality=quality
    )
    with whole_folder(path) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        expected = mesh if material else mesh.replace(texture={})
        _check_file(expected, folder / path.name, path, _same_axes, tolerance=1e-6)
    return [path.parent / name for name in files]


def read_mesh(path: str | Path) -> Mesh:
    """A mesh in the world frame (z up, front +x), whatever the axes of its format.

    A GLB is taken to be y-up facing +Z, as glTF says; other formats as they are. Corners that a file had to
    split for their texture coordinates are welded by position.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is not a mesh, or has no faces.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "mesh")
    loaded = _load(path)
    mesh = mesh_from_trimesh(loaded)
    if path.suffix.lower() not in {".glb", ".gltf"}:
        return mesh
    colors = None if mesh.vertex_colors is None else linear_to_srgb(mesh.vertex_colors)
    extras = glb_extras(path.read_bytes()) if path.suffix.lower() == ".glb" else {}
    return mesh.replace(vertices=from_gltf_axes(mesh.vertices), vertex_colors=colors, extras=extras)


def mesh_from_trimesh(loaded: trimesh.Trimesh) -> Mesh:
    """A trimesh object as our dataclass, axes as they are."""
    faces = torch.from_numpy(np.array(loaded.faces, dtype=np.int64))
    mesh = Mesh(torch.from_numpy(np.array(loaded.vertices, dtype=np.float32)), faces)
    visual: Any = loaded.visual
    uv = getattr(visual, "uv", None)
    if uv is not None and len(uv) == mesh.n_vertices:
        uvs = torch.from_numpy(np.array(uv[:, :2], dtype=np.float32))
        return weld(mesh.replace(uvs=uvs, uv_faces=faces.clone(), texture=textures_of(visual.material)))
    colors = _vertex_colors(visual, mesh.n_vertices)
    return mesh.replace(vertex_colors=colors)


def mesh_to_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    """Positions, faces and vertex colours as a trimesh object, vertex order kept; textures are left out."""
    colors = None if mesh.vertex_colors is None else mesh.vertex_colors.detach().clamp(0, 1).cpu().numpy()
    return trimesh.Trimesh(
        vertices=mesh.vertices.detach().cpu().numpy(),
        faces=mesh.faces.cpu().numpy(),
        vertex_colors=None if colors is None else np.rint(colors * 255).astype(np.uint8),
        process=False,
    )


def is_watertight(mesh: Mesh) -> bool:
    """Every edge has exactly two faces, and they agree on which side is out (trimesh's answer)."""
    bare = mesh_to_trimesh(weld(Mesh(mesh.vertices, mesh.faces)))
    return bool(bare.is_watertight and bare.is_winding_consistent)


def _write_plain(mesh: Mesh, path: Path) -> Path:
    _check_writable(mesh, path)
    with whole_file(path) as temporary:
        content: Any = mesh_to_trimesh(mesh).export(file_type=path.suffix.lower()[1:])
        temporary.write_bytes(content)
        _check_file(mesh.replace(texture={}), temporary, path, _same_axes, tolerance=1e-6)
    return path


def _load(path: Path) -> trimesh.Trimesh:
    try:
        loaded = _as_one(trimesh.load_scene(path, process=False))
    except (ValueError, KeyError, IndexError, TypeError, NotImplementedError) as err:
        raise UserError(f"{path} is not a mesh that can be read.", [str(err)]) from err
    if not isinstance(loaded, trimesh.Trimesh) or len(loaded.faces) == 0:
        raise UserError(f"{path} holds no faces.")
    return loaded


def _as_one(scene: trimesh.Scene) -> Any:
    """The only geometry as it is stored; several, or a moved one, put together in the scene's frame."""
    if len(scene.geometry) == 1 and len(scene.graph.nodes_geometry) == 1:
        transform, name = scene.graph[scene.graph.nodes_geometry[0]]
        if np.allclose(transform, np.eye(4), rtol=0.0, atol=0.0):
            return scene.geometry[name]
    return scene.to_mesh()


def _vertex_colors(visual: Any, n_vertices: int) -> Float[Tensor, "V 3"] | None:
    stored = visual.vertex_colors if getattr(visual, "kind", None) == "vertex" else None
    if stored is None and hasattr(visual, "vertex_attributes"):
        stored = visual.vertex_attributes.get("color")
    if stored is None or len(stored) != n_vertices:
        return None
    colors = np.asarray(stored)[:, :3]
    return torch.from_numpy(colors.astype(np.float32) / (255.0 if colors.dtype == np.uint8 else 1.0))


def _check_writable(mesh: Mesh, path: Path) -> None:
    if mesh.n_faces == 0:
        raise RunFailed(
            f"There is nothing to write: the mesh has no faces ({path.name}).",
            hint="the surface may lie below the isosurface threshold, or everything was removed as too small",
        )
    if not bool(torch.isfinite(mesh.vertices[mesh.faces]).all()):
        raise RunFailed(f"The mesh has positions that are not finite and was not written: {path.name}")


def _check_file(
    mesh: Mesh, written: Path, path: Path, axes: Callable[[Tensor], Tensor], tolerance: float
) -> None:
    try:
        loaded = _load(written)
    except UserError as err:
        raise RunFailed(f"{path.name} could not be read back and was not saved.", err.details) from err
    if len(loaded.faces) != mesh.n_faces:
        raise mismatch(path, "faces", mesh.n_faces, len(loaded.faces))
    corners: NDArray[Any] = axes(triangles(mesh)).detach().cpu().numpy()
    found: NDArray[Any] = np.asarray(loaded.triangles, dtype=np.float32)
    if not np.allclose(found, corners, rtol=0.0, atol=tolerance * max(1.0, float(np.abs(corners).max()))):
        raise mismatch(path, "bounding box", _box(corners), _box(found))
    _check_texture(mesh, loaded, path)


def _check_texture(mesh: Mesh, loaded: trimesh.Trimesh, path: Path) -> None:
    if not mesh.has_uvs or BASE_COLOR not in mesh.texture:
        return
    visual: Any = loaded.visual
    expected = tuple(mesh.texture[BASE_COLOR].shape[:2])
    textures = textures_of(getattr(visual, "material", None))
    found = tuple(textures[BASE_COLOR].shape[:2]) if BASE_COLOR in textures else None
    if found != expected:
        raise mismatch(path, "texture size", expected, found)


def _same_axes(vectors: Tensor) -> Tensor:
    return vectors


def _box(corners: NDArray[Any]) -> list[list[float]]:
    flat = corners.reshape(-1, 3)
    box: list[list[float]] = [flat.min(axis=0).tolist(), flat.max(axis=0).tolist()]
    return box

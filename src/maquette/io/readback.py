"""What was written, read by trimesh and compared with what should be there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import RunFailed, UserError
from maquette.io.bridge import GLTF_SUFFIXES, load, vertex_colors
from maquette.io.textures import BASE_COLOR, SPECULAR, textures_of
from maquette.io.writing import mismatch
from maquette.ops.color import srgb_to_linear
from maquette.ops.mesh import Mesh, triangles

UV_TOLERANCE = 1e-6
COLOR_TOLERANCE = 1 / 254
"""Colours of vertices may be stored as bytes."""
PICTURE_TOLERANCE = 0.04
"""Mean difference of a picture's values that compression may cause."""


def check_file(mesh: Mesh, written: Path, path: Path, tolerance: float) -> None:
    """Compare a file with the mesh that it should hold, corner by corner, axes as they are in the file.

    Args:
        mesh: what was written, in the file's axes.
        written: the file as it lies on the disk.
        path: what it will be called, for messages.
        tolerance: of positions, as a share of the largest coordinate (at least of 1).

    Raises:
        RunFailed: it cannot be read, or differs.
    """
    try:
        loaded = load(written)
    except UserError as err:
        raise RunFailed(f"{path.name} could not be read back and was not saved.", err.details) from err
    if len(loaded.faces) != mesh.n_faces:
        raise mismatch(path, "faces", mesh.n_faces, len(loaded.faces))
    compare_corners(
        triangles(mesh), torch.from_numpy(np.array(loaded.triangles, np.float32)), path, tolerance
    )
    _check_coordinates(mesh, loaded, path)
    _check_colors(mesh, loaded, path, linear=written.suffix.lower() in GLTF_SUFFIXES)
    names = (
        set(mesh.texture) if path.suffix.lower() != ".obj" else {BASE_COLOR}
    )  # trimesh reads no others there
    stored = textures_of(getattr(loaded.visual, "material", None))
    check_pictures({name: mesh.texture[name] for name in names & set(mesh.texture)}, stored, mesh, path)


def compare_corners(
    expected: Float[Tensor, "F 3 3"], found: Float[Tensor, "F 3 3"], path: Path, tolerance: float
) -> None:
    """Refuse positions of corners that differ; `tolerance` as in `check_file`."""
    expected = expected.detach().cpu()
    limit = tolerance * max(1.0, float(expected.abs().max()))
    if not torch.allclose(found.to(expected), expected, rtol=0.0, atol=limit):
        raise mismatch(path, "bounding box", _box(expected), _box(found))


def check_pictures(
    expected: dict[str, Float[Tensor, "H W C"]],
    found: dict[str, Float[Tensor, "H W C"]],
    mesh: Mesh,
    path: Path,
) -> None:
    """Refuse texture maps of another size or with other values; a mesh without coordinates stores none."""
    for name, image in expected.items() if mesh.has_uvs else ():
        if name == SPECULAR:
            continue
        again = found.get(name)
        sizes = tuple(image.shape[:2]), None if again is None else tuple(again.shape[:2])
        if again is None or sizes[0] != sizes[1]:
            raise mismatch(path, f"texture size ({name})", *sizes)
        shared = min(image.shape[-1], again.shape[-1], 3)
        wanted = torch.nan_to_num(image.detach().cpu()[..., :shared]).clamp(0, 1)
        if float((again[..., :shared] - wanted).abs().mean()) > PICTURE_TOLERANCE:
            raise mismatch(path, f"texture ({name})", "one picture", "another picture")


def _check_coordinates(mesh: Mesh, loaded: trimesh.Trimesh, path: Path) -> None:
    if mesh.uvs is None or mesh.uv_faces is None:
        return
    stored = getattr(loaded.visual, "uv", None)
    if stored is None:
        raise mismatch(path, "texture coordinates", len(mesh.uvs), None)
    found = torch.from_numpy(np.asarray(stored, np.float32)[np.asarray(loaded.faces)][..., :2])
    expected = mesh.uvs[mesh.uv_faces].detach().cpu()
    if not torch.allclose(found, expected, rtol=UV_TOLERANCE, atol=UV_TOLERANCE):
        raise mismatch(path, "texture coordinates", "some", "others")


def _check_colors(mesh: Mesh, loaded: trimesh.Trimesh, path: Path, linear: bool) -> None:
    if mesh.vertex_colors is None or mesh.texture:
        return
    stored = vertex_colors(loaded.visual, len(loaded.vertices))
    expected = mesh.vertex_colors.detach().cpu().clamp(0, 1)[mesh.faces.cpu()]
    if stored is None:
        return _accept_coordinates_alone(mesh, path)
    found = stored[torch.from_numpy(np.array(loaded.faces))]
    wanted = srgb_to_linear(expected) if linear else expected
    if not torch.allclose(found, wanted, rtol=0.0, atol=COLOR_TOLERANCE):
        raise mismatch(path, "vertex colours", "some", "others")


def _accept_coordinates_alone(mesh: Mesh, path: Path) -> None:
    """trimesh keeps either texture coordinates or colours of vertices; with both, colours are not seen."""
    if not mesh.has_uvs:
        raise mismatch(path, "vertex colours", mesh.n_vertices, None)


def _box(corners: Float[Tensor, "F 3 3"]) -> Any:
    flat = corners.reshape(-1, 3)
    return [flat.amin(dim=0).tolist(), flat.amax(dim=0).tolist()]

"""The meshes of an open USD stage; imported only where usd-core has been found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from maquette.core.errors import UserError
from maquette.io.textures import BASE_COLOR
from maquette.io.usd_materials import constant_color, preview_surface, surface_maps
from maquette.ops.color import linear_to_srgb
from maquette.ops.mesh import Mesh
from maquette.ops.point_cloud import painted


def stage_frame(stage: Any) -> tuple[str, float]:
    """The up axis ("y" or "z") and the length of a unit in metres that a stage states."""
    from pxr import UsdGeom

    return str(UsdGeom.GetStageUpAxis(stage)).lower(), float(UsdGeom.GetStageMetersPerUnit(stage))


def stage_meshes(stage: Any, path: Path) -> list[Mesh]:
    """Every mesh of a stage in the stage's frame and units.

    Raises:
        UserError: there is none, or one is damaged, or a texture cannot be read.
    """
    from pxr import Usd, UsdGeom

    cache = UsdGeom.XformCache()
    prims = Usd.PrimRange(stage.GetPseudoRoot(), Usd.TraverseInstanceProxies())
    found = [prim for prim in prims if prim.IsA(UsdGeom.Mesh)]
    meshes = [_mesh(UsdGeom.Mesh(prim), cache.GetLocalToWorldTransform(prim), path) for prim in found]
    meshes = [mesh for mesh in meshes if mesh.n_faces]
    if not meshes:
        raise UserError(f"{path} holds no faces.")
    if len(meshes) == 1:
        return meshes
    return [painted(mesh) for mesh in meshes]  # textures of several cannot stay apart in one


def _mesh(prim: Any, matrix: Any, path: Path) -> Mesh:
    from pxr import UsdGeom

    points = _array(prim.GetPointsAttr().Get(), np.float64).reshape(-1, 3)
    counts = _array(prim.GetFaceVertexCountsAttr().Get(), np.int64)
    indices = _array(prim.GetFaceVertexIndicesAttr().Get(), np.int64)
    if counts.sum() != len(indices) or (
        len(indices) and not 0 <= indices.min() <= indices.max() < len(points)
    ):
        raise UserError(f"{path} is damaged: faces name vertices that are not there.")
    moved = np.c_[points, np.ones(len(points))] @ np.array(matrix)
    if not np.isfinite(moved).all():
        raise UserError(f"{path} has positions that are not finite.", hint="mend it where it was made")
    mirrored = np.linalg.det(np.array(matrix)[:3, :3]) < 0
    left = prim.GetOrientationAttr().Get() == UsdGeom.Tokens.leftHanded
    corners = torch.from_numpy(_fans(counts, turned=bool(mirrored) != bool(left)))
    index = torch.from_numpy(indices)
    vertices = torch.from_numpy(moved[:, :3].astype(np.float32))
    mesh = Mesh(vertices, index[corners])
    mesh = mesh.replace(vertex_colors=_display_colors(prim, index, len(points)))
    return _textured(mesh, prim, index, corners, path)


def _array(values: Any, kind: Any) -> NDArray[Any]:
    return np.array([] if values is None else values, dtype=kind)


def _fans(counts: NDArray[np.int64], turned: bool) -> NDArray[np.int64]:
    """Corners (positions among all corners of all polygons) of the triangles that polygons are cut into."""
    start = np.cumsum(counts) - counts
    n = np.maximum(counts - 2, 0)
    first = np.repeat(start, n)
    step = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n) + 1
    fans = np.stack([first, first + step, first + step + 1], axis=-1)
    return fans[:, ::-1].copy() if turned else fans


def _display_colors(prim: Any, index: Int[Tensor, "K"], n_vertices: int) -> Float[Tensor, "V 3"] | None:
    """Colours of vertices, whatever the primvar is given for; at a vertex with several, one of them."""
    primvar = prim.GetDisplayColorPrimvar()
    values = primvar.ComputeFlattened() if primvar and primvar.HasAuthoredValue() else None
    colors = torch.from_numpy(_array(values, np.float32).reshape(-1, 3))
    if len(colors) == 1:
        colors = colors.expand(n_vertices, 3)
    elif len(colors) == len(index) and len(colors) != n_vertices:
        colors = torch.zeros(n_vertices, 3).index_copy(0, index, colors)
    return linear_to_srgb(colors).clamp(0, 1) if len(colors) == n_vertices and n_vertices else None


def _textured(
    mesh: Mesh, prim: Any, index: Int[Tensor, "K"], corners: Int[Tensor, "F 3"], path: Path
) -> Mesh:
    """The mesh with texture coordinates and maps, where it has both or one."""
    from pxr import UsdGeom

    surface = preview_surface(prim)
    maps = {} if surface is None else surface_maps(surface, path)
    primvar = UsdGeom.PrimvarsAPI(prim).FindPrimvarWithInheritance("st")
    if primvar and primvar.HasValue():
        uvs = torch.from_numpy(_array(primvar.Get(), np.float32).reshape(-1, 2))
        given = torch.from_numpy(_array(primvar.GetIndices(), np.int64))
        varying = given if len(given) else torch.arange(len(uvs))
        if len(varying) != len(index):
            varying = varying[index] if len(varying) == mesh.n_vertices else varying[:0]
        if len(varying) and int(varying.max()) < len(uvs):
            mesh = mesh.replace(uvs=uvs, uv_faces=varying[corners], texture=maps)
    if mesh.vertex_colors is None and BASE_COLOR not in mesh.texture:
        mesh = mesh.replace(vertex_colors=constant_color(surface, mesh.n_vertices))
    return mesh

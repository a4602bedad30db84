"""USD scenes with a UsdPreviewSurface material (openusd.org/release/spec_usdpreviewsurface.html).

Needs usd-core, an extra. A ``.usdz`` holds its textures; the other kinds have them beside. USD is the one
format here that only its own library reads: what is compared after writing was opened by a second stage.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maquette.core.errors import UserError
from maquette.core.optional import require
from maquette.core.paths import safe_name
from maquette.io.frames import UNITS, from_file, to_file
from maquette.io.readback import check_pictures, compare_corners
from maquette.io.textures import BASE_COLOR, METALLIC_ROUGHNESS, NORMAL, encode_texture
from maquette.io.writing import whole_folder
from maquette.ops.color import srgb_to_linear
from maquette.ops.mesh import Mesh, bounding_box, select_faces, triangles, vertex_normals

USD_SUFFIXES = (".usd", ".usda", ".usdc", ".usdz")
"""Binary or text, text, binary, package."""

_CRATE = b"PXR-USDC"
_PROBE = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
except ImportError:
    pass
from pxr import Usd
stage = Usd.Stage.Open(sys.argv[1])
for prim in Usd.PrimRange(stage.GetPseudoRoot(), Usd.TraverseInstanceProxies()):
    for attribute in prim.GetAttributes():
        attribute.Get()
"""
_PROBE_BYTES = 2**32
_PROBE_SECONDS = 300

_ROOT = "/model"
_SHADER = f"{_ROOT}/surface"


def write_usd(
    mesh: Mesh,
    path: str | Path,
    *,
    up: str = "z",
    units: str = "m",
    texture_format: str = "png",
    quality: int = 95,
) -> list[Path]:
    """Write a stage with one mesh and its material; the files written, the stage first.

    Args:
        mesh: in the world frame.
        path: a file ending in one of `USD_SUFFIXES`.
        up: the stage's up axis.
        units: the stage's metersPerUnit, by name (`frames.UNITS`).
        texture_format: "png" or "jpg"; only the base colour is ever a JPEG.
        quality: of a JPEG.

    Raises:
        MissingBackendError: usd-core is not installed.
        RunFailed: a full disk, or a file that reads back differently; nothing is left.
        UserError: a place that cannot be written to.
    """
    require("pxr", "usd")
    path = Path(path)
    everything = torch.ones(mesh.n_faces, dtype=torch.bool, device=mesh.faces.device)
    stored = to_file(select_faces(mesh, everything), up, units)
    pictures = _pictures(stored, safe_name(path.stem), texture_format, quality)
    packed = path.suffix.lower() == ".usdz"
    with whole_folder(path) as folder:
        for name, data in pictures.values():
            (folder / name).write_bytes(data)
        plain = folder / f"{safe_name(path.stem)}.usdc" if packed else folder / path.name
        _write_stage(stored, plain, {key: name for key, (name, _) in pictures.items()}, up, UNITS[units])
        if packed:
            _pack(plain, folder / path.name, [name for name, _ in pictures.values()])
        _check(mesh, folder / path.name, path)
    return [path] if packed else [path, *(path.parent / name for name, _ in pictures.values())]


def read_usd(path: str | Path, *, up: str | None = None, units: str | None = None) -> Mesh:
    """All meshes of a stage as one, in the world frame; polygons are cut into fans.

    Args:
        path: the stage.
        up: axis that points up, where the stage is wrong about it.
        units: unit of its coordinates, where the stage is wrong about it.

    Raises:
        MissingBackendError: usd-core is not installed.
        UserError: it cannot be opened, holds no mesh, or a texture of it cannot be read.
    """
    require("pxr", "usd")
    path = Path(path)
    _probe(path)
    return _read(path, up, units)


def _probe(path: Path) -> None:
    """Read a binary stage in a process of its own first: damaged lengths in it can ask for all the memory."""
    with path.open("rb") as file:
        if file.read(len(_CRATE)) != _CRATE:
            return
    limit = _PROBE_BYTES + 64 * path.stat().st_size
    command = [sys.executable, "-c", _PROBE, str(path.resolve()), str(limit)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired as err:
        raise UserError(f"{path} is not a USD stage, or it is damaged: reading it does not end.") from err
    if done.returncode != 0:
        raise UserError(f"{path} is not a USD stage, or it is damaged.")


def _read(path: Path, up: str | None = None, units: str | None = None) -> Mesh:
    from maquette.io.usd_reading import stage_frame, stage_meshes

    with _explained(path):
        stage = require("pxr.Usd", "usd").Stage.Open(str(path.resolve()))
        stated_up, meters = stage_frame(stage)
        mesh = _joined(stage_meshes(stage, path))
    scale = meters if units is None else UNITS[units] if units in UNITS else 1.0
    mesh = from_file(mesh, up or stated_up, "m" if units is None or units in UNITS else units)
    return mesh if scale == 1.0 else mesh.replace(vertices=mesh.vertices * scale)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    errors = require("pxr.Tf", "usd").ErrorException
    try:
        yield
    except errors as err:
        raise UserError(f"{path} is not a USD stage, or it is damaged.") from err


def _joined(meshes: list[Mesh]) -> Mesh:
    """One mesh; several lose their textures to the colours of their vertices."""
    if len(meshes) == 1:
        return meshes[0]
    offsets = torch.tensor([0] + [mesh.n_vertices for mesh in meshes]).cumsum(0).tolist()
    colors = [mesh.vertex_colors for mesh in meshes]
    grey = [torch.full_like(mesh.vertices, 0.75) for mesh in meshes]
    some = any(one is not None for one in colors)
    both = [grey[k] if one is None else one for k, one in enumerate(colors)]
    faces = [mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=False)]
    vertices = torch.cat([mesh.vertices for mesh in meshes])
    return Mesh(vertices, torch.cat(faces), vertex_colors=torch.cat(both) if some else None)


def _pictures(mesh: Mesh, stem: str, texture_format: str, quality: int) -> dict[str, tuple[str, bytes]]:
    """File name and bytes of each map."""
    maps = mesh.texture if mesh.has_uvs else {}
    kinds = {BASE_COLOR: texture_format, METALLIC_ROUGHNESS: "png", NORMAL: "png"}
    return {
        name: (f"{stem}_{name}.{kinds[name]}", encode_texture(image, kinds[name], quality))
        for name, image in maps.items()
        if name in kinds
    }


def _write_stage(mesh: Mesh, path: Path, pictures: Mapping[str, str], up: str, meters: float) -> None:
    from pxr import Usd, UsdGeom, UsdShade

    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y if up == "y" else UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, meters)
    root = UsdGeom.Xform.Define(stage, _ROOT)
    stage.SetDefaultPrim(root.GetPrim())
    notes = {key: str(value) for key, value in mesh.extras.items()}
    root.GetPrim().SetCustomData({**notes, "generator": "maquette"})
    prim = _define_mesh(stage, mesh)
    material = _define_material(stage, mesh, pictures)
    UsdShade.MaterialBindingAPI.Apply(prim.GetPrim()).Bind(material)
    stage.GetRootLayer().Save()


def _define_mesh(stage: Any, mesh: Mesh) -> Any:
    from pxr import Sdf, UsdGeom, Vt

    prim = UsdGeom.Mesh.Define(stage, f"{_ROOT}/mesh")
    prim.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(_float32(mesh.vertices)))
    prim.CreateFaceVertexCountsAttr(Vt.IntArray([3] * mesh.n_faces))
    prim.CreateFaceVertexIndicesAttr(_integers(mesh.faces))
    prim.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(_float32(vertex_normals(mesh))))
    prim.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    prim.CreateExtentAttr(Vt.Vec3fArray.FromNumpy(_float32(bounding_box(mesh))))
    prim.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    prim.CreateDoubleSidedAttr(True)
    primvars = UsdGeom.PrimvarsAPI(prim)
    if mesh.uvs is not None and mesh.uv_faces is not None:
        kind = Sdf.ValueTypeNames.TexCoord2fArray
        st = primvars.CreatePrimvar("st", kind, UsdGeom.Tokens.faceVarying)
        st.Set(Vt.Vec2fArray.FromNumpy(_float32(mesh.uvs)))
        st.SetIndices(_integers(mesh.uv_faces))
    if mesh.vertex_colors is not None:
        color = prim.CreateDisplayColorPrimvar(UsdGeom.Tokens.vertex)
        color.Set(Vt.Vec3fArray.FromNumpy(_float32(srgb_to_linear(mesh.vertex_colors.clamp(0, 1)))))
    return prim


def _define_material(stage: Any, mesh: Mesh, pictures: Mapping[str, str]) -> Any:
    from pxr import Sdf, UsdShade

    types = Sdf.ValueTypeNames
    material = UsdShade.Material.Define(stage, _SHADER)
    surface = UsdShade.Shader.Define(stage, f"{_SHADER}/preview")
    surface.CreateIdAttr("UsdPreviewSurface")
    material.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
    surface.CreateInput("roughness", types.Float).Set(1.0)
    surface.CreateInput("metallic", types.Float).Set(0.0)
    if BASE_COLOR in pictures:
        source = _texture(stage, BASE_COLOR, pictures[BASE_COLOR], "sRGB")
        surface.CreateInput("diffuseColor", types.Color3f).ConnectToSource(source, "rgb")
    elif mesh.vertex_colors is not None:
        source = _reader(stage, "color", "UsdPrimvarReader_float3", "displayColor")
        surface.CreateInput("diffuseColor", types.Color3f).ConnectToSource(source, "result")
    if METALLIC_ROUGHNESS in pictures:
        source = _texture(stage, METALLIC_ROUGHNESS, pictures[METALLIC_ROUGHNESS], "raw")
        surface.GetInput("roughness").ConnectToSource(source, "g")
        surface.GetInput("metallic").ConnectToSource(source, "b")
    if NORMAL in pictures:
        source = _texture(stage, NORMAL, pictures[NORMAL], "raw", scale=2.0, bias=-1.0)
        surface.CreateInput("normal", types.Normal3f).ConnectToSource(source, "rgb")
    return material


def _texture(
    stage: Any, name: str, file: str, space: str, scale: float | None = None, bias: float = 0.0
) -> Any:
    from pxr import Gf, Sdf, UsdShade

    types = Sdf.ValueTypeNames
    shader = UsdShade.Shader.Define(stage, f"{_SHADER}/{name}")
    shader.CreateIdAttr("UsdUVTexture")
    shader.CreateInput("file", types.Asset).Set(Sdf.AssetPath(f"./{file}"))
    shader.CreateInput("sourceColorSpace", types.Token).Set(space)
    for wrap in ("wrapS", "wrapT"):
        shader.CreateInput(wrap, types.Token).Set("clamp")
    if scale is not None:
        shader.CreateInput("scale", types.Float4).Set(Gf.Vec4f(scale, scale, scale, 1.0))
        shader.CreateInput("bias", types.Float4).Set(Gf.Vec4f(bias, bias, bias, 0.0))
    reader = _reader(stage, "coordinates", "UsdPrimvarReader_float2", "st")
    shader.CreateInput("st", types.Float2).ConnectToSource(reader, "result")
    return shader.ConnectableAPI()


def _reader(stage: Any, name: str, kind: str, primvar: str) -> Any:
    from pxr import Sdf, UsdShade

    shader = UsdShade.Shader.Define(stage, f"{_SHADER}/{name}")
    shader.CreateIdAttr(kind)
    shader.CreateInput("varname", Sdf.ValueTypeNames.String).Set(primvar)
    return shader.ConnectableAPI()


def _pack(stage: Path, package: Path, pictures: list[str]) -> None:
    """A package of a stage and its pictures, which are then gone from beside it."""
    from pxr import Sdf, UsdUtils

    if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(stage)), str(package)):
        raise UserError(f"{package.name} could not be packed.", hint="write a .usdc")
    for file in (stage, *(stage.parent / name for name in pictures)):
        file.unlink()


def _check(mesh: Mesh, written: Path, path: Path) -> None:
    again = _read(written)
    compare_corners(triangles(mesh), triangles(again), path, tolerance=1e-6)
    check_pictures(mesh.texture, again.texture, mesh, path)


def _float32(values: Tensor) -> Any:
    return values.detach().cpu().float().contiguous().numpy()


def _integers(values: Tensor) -> Any:
    from pxr import Vt

    return Vt.IntArray.FromNumpy(values.reshape(-1).int().cpu().contiguous().numpy())

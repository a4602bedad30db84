"""One mesh as Wavefront OBJ text with material library and pictures; axes stay the world's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from maquette.core.paths import safe_name
from maquette.io.textures import BASE_COLOR, METALLIC_ROUGHNESS, NORMAL, encode_texture
from maquette.ops.mesh import Mesh, vertex_normals

_MATERIAL = "surface"


def obj_files(
    mesh: Mesh,
    stem: str,
    *,
    material: bool = True,
    normals: bool = False,
    texture_format: str = "jpg",
    quality: int = 95,
) -> dict[str, bytes]:
    """File names and contents: ``stem.obj`` first, then its material library and textures, if it has any.

    Args:
        mesh: texture coordinates are written where it has them, vertex colours where it has those.
        stem: name of the files without suffix.
        material: also a ``.mtl`` with the mesh's textures.
        normals: also smooth vertex normals.
        texture_format: "png" or "jpg"; the normal map is always PNG.
        quality: of a JPEG.
    """
    files = {f"{stem}.obj": b""}
    library = None
    if material and mesh.has_uvs and mesh.texture:
        library = f"{safe_name(stem)}.mtl"
        maps, pictures = _maps(mesh, safe_name(stem), texture_format, quality)
        files |= {library: _library(maps), **pictures}
    files[f"{stem}.obj"] = _object(mesh, library, normals)
    return files


def _object(mesh: Mesh, library: str | None, normals: bool) -> bytes:
    lines = ["# maquette: z up, front +x"]
    lines += [f"mtllib {library}", f"usemtl {_MATERIAL}"] if library else []
    lines += _numbers("v", mesh.vertices, mesh.vertex_colors)
    lines += _numbers("vt", mesh.uvs) if mesh.uvs is not None and mesh.has_uvs else []
    lines += _numbers("vn", vertex_normals(mesh)) if normals else []
    lines += _faces(mesh, normals)
    return ("\n".join(lines) + "\n").encode()


def _numbers(key: str, *columns: Float[Tensor, "N C"] | None) -> Iterable[str]:
    """Nine digits bring every float32 back exactly."""
    arrays = [column.detach().cpu().tolist() for column in columns if column is not None]
    for rows in zip(*arrays, strict=True):
        yield f"{key} " + " ".join(f"{value:.9g}" for row in rows for value in row)


def _faces(mesh: Mesh, normals: bool) -> Iterable[str]:
    vertex = _one_based(mesh.faces)
    uv = _one_based(mesh.uv_faces) if mesh.uv_faces is not None and mesh.has_uvs else None
    for index, corners in enumerate(vertex):
        texture: Sequence[Any] = ("", "", "") if uv is None else uv[index]
        yield "f " + " ".join(
            _corner(v, t, v if normals else "") for v, t in zip(corners, texture, strict=True)
        )


def _corner(vertex: int, texture: int | str, normal: int | str) -> str:
    if normal != "":
        return f"{vertex}/{texture}/{normal}"
    return f"{vertex}/{texture}" if texture != "" else f"{vertex}"


def _one_based(faces: Tensor) -> Any:
    array: NDArray[Any] = faces.cpu().numpy() + 1
    return array.tolist()


def _maps(
    mesh: Mesh, stem: str, texture_format: str, quality: int
) -> tuple[dict[str, str], dict[str, bytes]]:
    pictures: dict[str, tuple[Tensor, str]] = {}
    if BASE_COLOR in mesh.texture:
        pictures["map_Kd"] = (mesh.texture[BASE_COLOR], texture_format)
    if METALLIC_ROUGHNESS in mesh.texture:
        pictures["map_Pr"] = (mesh.texture[METALLIC_ROUGHNESS][..., 1:2], texture_format)
        pictures["map_Pm"] = (mesh.texture[METALLIC_ROUGHNESS][..., 2:3], texture_format)
    if NORMAL in mesh.texture:
        pictures["norm"] = (mesh.texture[NORMAL], "png")
    names = {key: f"{stem}_{key.removeprefix('map_').lower()}.{kind}" for key, (_, kind) in pictures.items()}
    encoded = {names[key]: encode_texture(image, kind, quality) for key, (image, kind) in pictures.items()}
    return names, encoded


def _library(maps: dict[str, str]) -> bytes:
    lines = [f"newmtl {_MATERIAL}", "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0", "illum 1"]
    lines += [f"{key} {name}" for key, name in maps.items()]
    return ("\n".join(lines) + "\n").encode()

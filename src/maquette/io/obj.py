"""One mesh as Wavefront OBJ text with material library and pictures, and the maps that a library names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from maquette.core.errors import UserError
from maquette.core.paths import safe_name
from maquette.io.images import read_image
from maquette.io.textures import (
    BASE_COLOR,
    METALLIC_ROUGHNESS,
    NORMAL,
    SPECULAR,
    encode_texture,
    pack_metallic_roughness,
)
from maquette.ops.mesh import Mesh, vertex_normals

_MATERIAL = "surface"
_BASE, _ROUGH, _METAL = "map_kd", "map_pr", "map_pm"
_NORMAL_KEYS = ("norm", "map_bump", "bump")


def obj_files(
    mesh: Mesh,
    stem: str,
    *,
    material: bool = True,
    normals: bool = False,
    texture_format: str = "jpg",
    quality: int = 95,
    frame: str = "z up, front +x",
) -> dict[str, bytes]:
    """File names and contents: ``stem.obj`` first, then its material library and textures, if it has any.

    Args:
        mesh: texture coordinates are written where it has them, vertex colours where it has those.
        stem: name of the files without suffix.
        material: also a ``.mtl`` with the mesh's textures.
        normals: also smooth vertex normals.
        texture_format: "png" or "jpg"; the normal map is always PNG.
        quality: of a JPEG.
        frame: the axes in words, for the comment at the top.
    """
    files = {f"{stem}.obj": b""}
    library = None
    if material and mesh.has_uvs and mesh.texture:
        library = f"{safe_name(stem)}.mtl"
        maps, pictures = _maps(mesh, safe_name(stem), texture_format, quality)
        files |= {library: _library(maps), **pictures}
    files[f"{stem}.obj"] = _object(mesh, library, normals, frame)
    return files


def library_maps(path: Path) -> dict[str, Float[Tensor, "H W C"]]:
    """The maps of an OBJ that has exactly one material, by our names; empty where it has several or none.

    A map of roughness alone is of something that is no metal, one of metalness alone of something rough.

    Raises:
        UserError: a picture that is named is missing or cannot be read.
    """
    libraries = [line.split(maxsplit=1)[1].strip() for line in _lines(path) if line.startswith("mtllib ")]
    entries = [line.split() for name in libraries for line in _lines(path.parent / name)]
    entries = [words for words in entries if len(words) > 1]
    if sum(words[0].lower() == "newmtl" for words in entries) != 1:
        return {}
    files = {words[0].lower(): path.parent / _file_of(words) for words in entries}
    maps = {BASE_COLOR: _picture(files[_BASE], path)} if _BASE in files else {}
    if _ROUGH in files or _METAL in files:
        maps[METALLIC_ROUGHNESS] = _packed(files.get(_ROUGH), files.get(_METAL), path)
    for key in [key for key in _NORMAL_KEYS if key in files][:1]:
        image = _picture(files[key], path)
        if key == "norm" or _is_normal_map(image):
            maps[NORMAL] = image
    return maps


def _object(mesh: Mesh, library: str | None, normals: bool, frame: str) -> bytes:
    lines = [f"# maquette: {frame}"]
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
    if SPECULAR in mesh.texture:
        pictures["map_Ks"] = (mesh.texture[SPECULAR], texture_format)
    if METALLIC_ROUGHNESS in mesh.texture:
        pictures["map_Pr"] = (mesh.texture[METALLIC_ROUGHNESS][..., 1:2], texture_format)
        pictures["map_Pm"] = (mesh.texture[METALLIC_ROUGHNESS][..., 2:3], texture_format)
    if NORMAL in mesh.texture:
        pictures["norm"] = (mesh.texture[NORMAL], "png")
    names = {key: f"{stem}_{key.removeprefix('map_').lower()}.{kind}" for key, (_, kind) in pictures.items()}
    encoded = {names[key]: encode_texture(image, kind, quality) for key, (image, kind) in pictures.items()}
    return names, encoded


def _library(maps: dict[str, str]) -> bytes:
    lines = [f"newmtl {_MATERIAL}", "Ka 0 0 0", "Kd 1 1 1", "Ks 1 1 1" if "map_Ks" in maps else "Ks 0 0 0"]
    lines += ["illum 2" if "map_Ks" in maps else "illum 1"]
    lines += [f"{key} {name}" for key, name in maps.items()]
    lines += [f"map_Bump {maps['norm']}"] if "norm" in maps else []  # by this name Blender finds it
    return ("\n".join(lines) + "\n").encode()


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]


def _file_of(words: Sequence[str]) -> str:
    """The name at the end of an entry, after options such as ``-bm 1.0``; a name may hold blanks."""
    rest = list(words[1:])
    while rest and rest[0].startswith("-"):
        rest = rest[1:]
        while len(rest) > 1 and _is_argument(rest[0]):
            rest = rest[1:]
    return " ".join(rest).replace("\\", "/")


def _is_argument(word: str) -> bool:
    return word in ("on", "off") or re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", word) is not None


def _picture(file: Path, path: Path) -> Float[Tensor, "H W C"]:
    try:
        return read_image(file)
    except UserError as err:
        raise UserError(f"A texture of {path} cannot be read.", [str(err)]) from err


def _is_normal_map(image: Float[Tensor, "H W C"]) -> bool:
    """Tangent-space normals are bluish; a picture of heights, which "bump" may also name, is grey."""
    mean = image.mean(dim=(0, 1)).tolist()
    return len(mean) >= 3 and mean[2] > max(mean[0], mean[1]) + 0.15


def _packed(rough: Path | None, metal: Path | None, path: Path) -> Float[Tensor, "H W 3"]:
    metallic, roughness = (None if file is None else _picture(file, path)[..., :1] for file in (metal, rough))
    if metallic is not None and roughness is not None and metallic.shape != roughness.shape:
        raise UserError(f"The roughness and metalness maps of {path} differ in size.")
    return pack_metallic_roughness(metallic, roughness)

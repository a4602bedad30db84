"""One mesh as the bytes of a binary glTF 2.0 file (registry.khronos.org/glTF/specs/2.0).

glTF is y-up and an asset faces +Z; the world here is z-up and faces +x, so (x, y, z) is stored as (y, z, x).
The layout is fixed and holds no time and no random name: the same mesh always gives the same bytes.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from maquette.core.errors import UserError
from maquette.io.textures import BASE_COLOR, FORMATS, METALLIC_ROUGHNESS, NORMAL, encode_texture
from maquette.ops.color import srgb_to_linear
from maquette.ops.mesh import Mesh, unique_pairs, vertex_normals

CONVENTION = "y up, front +Z, right-handed; world (x, y, z) with z up and front +x is stored as (y, z, x)"
"""What the asset's extras say about its axes."""

_MAGIC, _VERSION, _JSON, _BIN = 0x46546C67, 2, 0x4E4F534A, 0x004E4942
_FLOAT, _UINT32 = 5126, 5125
_ARRAY_BUFFER, _ELEMENT_BUFFER = 34962, 34963
_LINEAR, _MIPMAP, _CLAMP = 9729, 9987, 33071
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3"}


def to_gltf_axes(vectors: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """World vectors (z up, front +x) in the axes of glTF (y up, front +Z)."""
    return vectors[..., [1, 2, 0]]


def from_gltf_axes(vectors: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """Vectors in the axes of glTF (y up, front +Z) in the world's (z up, front +x)."""
    return vectors[..., [2, 0, 1]]


def glb_bytes(mesh: Mesh, unlit: bool = False, texture_format: str = "png", quality: int = 95) -> bytes:
    """The whole file: geometry with smooth normals, one material, textures embedded.

    Args:
        mesh: in the world frame. Textures are used where it has texture coordinates, else vertex colours.
        unlit: show the base colour as it is (KHR_materials_unlit); otherwise a rough, non-metallic surface.
        texture_format: "png" or "jpg"; the normal map and the metallic-roughness map are always PNG.
        quality: of a JPEG.
    """
    builder = _Builder()
    attributes, indices = _append_geometry(builder, mesh)
    material = _material(builder, mesh, unlit, texture_format, quality)
    primitive = {"attributes": attributes, "indices": indices, "material": 0, "mode": 4}
    name = str(mesh.extras.get("name", "model"))
    tree: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "maquette", "extras": _extras(mesh)},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"name": name, "primitives": [primitive]}],
        "materials": [material],
    }
    if unlit:
        tree["extensionsUsed"] = ["KHR_materials_unlit"]
    return _assemble(tree | builder.tables(), bytes(builder.data))


def glb_extras(data: bytes) -> dict[str, Any]:
    """What a GLB file carries in its asset's extras; empty where it carries nothing."""
    if len(data) < 20 or struct.unpack_from("<I", data)[0] != _MAGIC:
        raise UserError("This is not a GLB file.")
    length = struct.unpack_from("<I", data, 12)[0]
    extras = json.loads(data[20 : 20 + length]).get("asset", {}).get("extras", {})
    return extras if isinstance(extras, dict) else {}


class _Builder:
    """Collects binary data with the views, accessors and pictures that point into it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []
        self.images: list[dict[str, Any]] = []

    def view(self, blob: bytes, target: int | None = None) -> int:
        entry = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(blob)}
        self.views.append(entry if target is None else entry | {"target": target})
        self.data += blob + b"\0" * (-len(blob) % 4)
        return len(self.views) - 1

    def accessor(self, values: NDArray[Any], component: int, target: int, bounds: bool = False) -> int:
        columns = 1 if values.ndim == 1 else values.shape[1]
        entry: dict[str, Any] = {
            "bufferView": self.view(values.tobytes(), target),
            "componentType": component,
            "count": len(values),
            "type": _TYPES[columns],
        }
        if bounds:
            entry |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        self.accessors.append(entry)
        return len(self.accessors) - 1

    def texture(self, image: Float[Tensor, "H W C"], texture_format: str, quality: int) -> dict[str, int]:
        mime = f"image/{FORMATS.get(texture_format, 'png').lower()}"
        view = self.view(encode_texture(image, texture_format, quality))
        self.images.append({"bufferView": view, "mimeType": mime})
        return {"index": len(self.images) - 1}

    def tables(self) -> dict[str, Any]:
        tables: dict[str, Any] = {
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(self.data)}],
        }
        if self.images:
            sampler = {"magFilter": _LINEAR, "minFilter": _MIPMAP, "wrapS": _CLAMP, "wrapT": _CLAMP}
            tables["images"] = self.images
            tables["samplers"] = [sampler]
            tables["textures"] = [{"sampler": 0, "source": index} for index in range(len(self.images))]
        return tables


def _append_geometry(builder: _Builder, mesh: Mesh) -> tuple[dict[str, int], int]:
    normals = vertex_normals(mesh)
    vertex, uv, faces = _split_corners(mesh)

    def attribute(values: Tensor, bounds: bool = False) -> int:
        return builder.accessor(_float32(values), _FLOAT, _ARRAY_BUFFER, bounds)

    attributes = {
        "POSITION": attribute(to_gltf_axes(mesh.vertices[vertex]), bounds=True),
        "NORMAL": attribute(to_gltf_axes(normals[vertex])),
    }
    if mesh.uvs is not None and uv is not None:
        flipped = torch.stack([mesh.uvs[uv, 0], 1.0 - mesh.uvs[uv, 1]], dim=-1)
        attributes["TEXCOORD_0"] = attribute(flipped)
    if mesh.vertex_colors is not None and not mesh.texture:
        attributes["COLOR_0"] = attribute(srgb_to_linear(mesh.vertex_colors[vertex].clamp(0, 1)))
    indices = faces.reshape(-1).cpu().numpy().astype("<u4")
    return attributes, builder.accessor(indices, _UINT32, _ELEMENT_BUFFER)


def _split_corners(mesh: Mesh) -> tuple[Tensor, Tensor | None, Tensor]:
    """Vertex and texture coordinate of each glTF vertex (each pair that occurs), and faces over them."""
    if mesh.uvs is None or mesh.uv_faces is None:
        used, faces = torch.unique(mesh.faces, return_inverse=True)
        return used, None, faces
    pairs = torch.stack([mesh.faces, mesh.uv_faces], dim=-1).reshape(-1, 2)
    unique, inverse, _ = unique_pairs(pairs)
    return unique[:, 0], unique[:, 1], inverse.reshape(-1, 3)


def _material(
    builder: _Builder, mesh: Mesh, unlit: bool, texture_format: str, quality: int
) -> dict[str, Any]:
    maps = mesh.texture if mesh.has_uvs else {}
    has_pbr = METALLIC_ROUGHNESS in maps
    surface: dict[str, Any] = {"metallicFactor": 1.0 if has_pbr else 0.0, "roughnessFactor": 1.0}
    material: dict[str, Any] = {"doubleSided": True, "name": "surface", "pbrMetallicRoughness": surface}
    if BASE_COLOR in maps:
        surface["baseColorTexture"] = builder.texture(maps[BASE_COLOR], texture_format, quality)
    if has_pbr:
        surface["metallicRoughnessTexture"] = builder.texture(maps[METALLIC_ROUGHNESS], "png", quality)
    if NORMAL in maps:
        material["normalTexture"] = builder.texture(maps[NORMAL], "png", quality)
    if unlit:
        material["extensions"] = {"KHR_materials_unlit": {}}
    return material


def _extras(mesh: Mesh) -> dict[str, Any]:
    return {**mesh.extras, "convention": CONVENTION}


def _float32(values: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(values.detach().cpu().numpy(), dtype="<f4")


def _assemble(tree: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    header = struct.pack("<III", _MAGIC, _VERSION, total)
    chunks = struct.pack("<II", len(text), _JSON) + text + struct.pack("<II", len(binary), _BIN) + binary
    return header + chunks

"""Between trimesh's meshes and ours; trimesh does the reading of most formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from trimesh.visual import ColorVisuals, TextureVisuals

from maquette.core.errors import UserError
from maquette.io.textures import BASE_COLOR, textures_of
from maquette.ops.color import linear_to_srgb, srgb_to_linear
from maquette.ops.mesh import Mesh, weld

GLTF_SUFFIXES = (".glb", ".gltf")
"""Formats whose colours of vertices and materials are linear."""


def load(path: Path) -> trimesh.Trimesh:
    """One trimesh object for a file, its parts put together in the frame of the scene.

    Raises:
        UserError: it cannot be read, is damaged, or has no faces.
    """
    try:
        loaded = _as_one(trimesh.load_scene(path, process=False), path.suffix.lower() in GLTF_SUFFIXES)
    except Exception as err:
        raise UserError(f"{path} is not a mesh that can be read.", [_first_line(err)]) from err
    if not isinstance(loaded, trimesh.Trimesh) or len(loaded.faces) == 0:
        raise UserError(f"{path} holds no faces.")
    faces, vertices = np.asarray(loaded.faces), np.asarray(loaded.vertices)
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise UserError(f"{path} is damaged: faces name vertices that are not there.")
    if not np.isfinite(vertices[faces]).all():
        raise UserError(f"{path} has positions that are not finite.", hint="mend it where it was made")
    return loaded


def mesh_from_trimesh(loaded: trimesh.Trimesh, linear: bool = False) -> Mesh:
    """A trimesh object as our dataclass, axes as they are; corners split for texture coordinates are welded.

    `linear` tells that colours of vertices and materials (not those of textures) are linear, as in glTF.
    """
    faces = torch.from_numpy(np.array(loaded.faces, dtype=np.int64))
    mesh = Mesh(torch.from_numpy(np.array(loaded.vertices, dtype=np.float32)), faces)
    visual: Any = loaded.visual
    uv = getattr(visual, "uv", None)
    if uv is not None and len(uv) == mesh.n_vertices:
        uvs = torch.from_numpy(np.array(uv[:, :2], dtype=np.float32))
        texture = _tinted(textures_of(visual.material), visual.material, linear)
        mesh = mesh.replace(uvs=uvs, uv_faces=faces.clone(), texture=texture)
        if texture:
            return weld(mesh)
    colors = vertex_colors(visual, mesh.n_vertices)
    if colors is None:
        colors = _material_color(visual, mesh.n_vertices)
    mesh = mesh.replace(vertex_colors=linear_to_srgb(colors) if linear and colors is not None else colors)
    return weld(mesh) if mesh.has_uvs else mesh


def mesh_to_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    """Positions, faces and vertex colours as a trimesh object, vertex order kept; textures are left out."""
    colors = None if mesh.vertex_colors is None else mesh.vertex_colors.detach().clamp(0, 1).cpu().numpy()
    return trimesh.Trimesh(
        vertices=mesh.vertices.detach().cpu().numpy(),
        faces=mesh.faces.cpu().numpy(),
        vertex_colors=None if colors is None else np.rint(colors * 255).astype(np.uint8),
        process=False,
    )


def vertex_colors(visual: Any, n_vertices: int) -> Float[Tensor, "V 3"] | None:
    """Colours of vertices as they are stored, in [0, 1]; None where there are none."""
    stored = visual.vertex_colors if getattr(visual, "kind", None) == "vertex" else None
    if stored is None and hasattr(visual, "vertex_attributes"):
        stored = visual.vertex_attributes.get("color")
    if stored is None or len(stored) != n_vertices:
        return None
    colors = np.asarray(stored)[:, :3]
    scale = float(np.iinfo(colors.dtype).max) if colors.dtype.kind == "u" else 1.0
    return torch.from_numpy(colors.astype(np.float32) / scale)


def _as_one(scene: trimesh.Scene, linear: bool) -> Any:
    """The only geometry as it is stored; several, or a moved one, put together in the scene's frame."""
    meshes = {name: one for name, one in scene.geometry.items() if isinstance(one, trimesh.Trimesh)}
    if len(meshes) == 1 and len(scene.geometry) == 1 and len(scene.graph.nodes_geometry) == 1:
        transform, name = scene.graph[scene.graph.nodes_geometry[0]]
        if np.allclose(transform, np.eye(4), rtol=0.0, atol=0.0):
            return scene.geometry[name]
    if len(meshes) > 1 and not all(_is_textured(one.visual) for one in meshes.values()):
        for one in meshes.values():
            one.visual = ColorVisuals(one, vertex_colors=_plain_colors(one, linear))
    return scene.to_mesh()


def _is_textured(visual: Any) -> bool:
    return isinstance(visual, TextureVisuals) and visual.uv is not None and bool(textures_of(visual.material))


def _plain_colors(part: trimesh.Trimesh, linear: bool) -> NDArray[np.uint8]:
    """Colours of a part's vertices, all of one kind so that parts can be put together; grey without any."""
    visual: Any = part.visual
    colors = vertex_colors(visual, len(part.vertices))
    if colors is None and _is_textured(visual):
        sampled = torch.from_numpy(np.array(visual.to_color().vertex_colors[:, :3], dtype=np.float32) / 255.0)
        colors = srgb_to_linear(sampled) if linear else sampled
    if colors is None:
        colors = _material_color(visual, len(part.vertices))
    if colors is None:
        colors = torch.full((len(part.vertices), 3), 0.75)
    stored: NDArray[np.uint8] = np.rint(colors.clamp(0, 1).numpy() * 255).astype(np.uint8)
    return stored


def _factor(material: Any) -> Float[Tensor, "3"] | None:
    """The colour that a material multiplies with, in [0, 1], as it is stored."""
    factor = getattr(material, "baseColorFactor", None)
    if factor is None and isinstance(material, trimesh.visual.material.SimpleMaterial):
        factor = material.diffuse
    if factor is None:
        return None
    values = np.asarray(factor)[:3]
    return torch.from_numpy(values.astype(np.float32) / (255.0 if values.dtype == np.uint8 else 1.0))


def _material_color(visual: Any, n_vertices: int) -> Float[Tensor, "V 3"] | None:
    """One colour for all vertices where the material has one that is not white."""
    factor = _factor(getattr(visual, "material", None))
    if factor is None or bool((factor > 0.999).all()):
        return None
    return factor.expand(n_vertices, 3).clone()


def _tinted(texture: dict[str, Tensor], material: Any, linear: bool) -> dict[str, Tensor]:
    """The maps of a glTF material, its base colour multiplied by the factor, which counts in linear light."""
    factor = _factor(material) if linear else None
    if factor is None or BASE_COLOR not in texture or bool((factor > 0.999).all()):
        return texture
    image = texture[BASE_COLOR]
    tinted = linear_to_srgb(srgb_to_linear(image[..., :3].expand(-1, -1, 3)) * factor)
    return {**texture, BASE_COLOR: torch.cat([tinted, image[..., 3:]], dim=-1)}


def _first_line(err: Exception) -> str:
    text = (str(err).strip() or type(err).__name__).splitlines()[0]
    return text if len(text) <= 200 else f"{text[:200]}..."

"""A textured triangle mesh out of any geometry that has an isosurface."""

import logging
from dataclasses import dataclass, field
from typing import Any

import torch

from maquette.core.errors import ConfigError, RunFailed
from maquette.core.registry import register
from maquette.io.frames import UNITS
from maquette.io.remesh import decimate, smooth
from maquette.io.repair import repaired
from maquette.io.textures import FORMATS
from maquette.io.uv import unwrap
from maquette.models.exporters.baking import bake_vertex_colors
from maquette.models.exporters.base import BaseExporter, ExportItem
from maquette.models.exporters.surface_colors import SurfaceColors
from maquette.models.exporters.texture_maps import bake_maps
from maquette.ops.mesh import (
    Mesh,
    bounding_box,
    largest_components,
    merge_vertices,
    remove_degenerate_faces,
    volume,
)
from maquette.ops.mesh_health import is_closed, uv_overlap

log = logging.getLogger(__name__)

SUFFIXES = {
    "glb": ".glb",
    "obj-mtl": ".obj",
    "obj": ".obj",
    "ply": ".ply",
    "stl": ".stl",
    "usd": ".usdc",
    "usda": ".usda",
    "usdc": ".usdc",
    "usdz": ".usdz",
}
"""Names of formats, and the suffixes of their files."""
WITHOUT_TEXTURE = ("obj", "ply", "stl")
"""Formats whose colours, if they have any, are at the vertices."""
COUNTS = ("max_faces", "smooth_iterations", "texture_padding", "color_depth")

OUTSIDE = 1e-4
"""How far texture coordinates may lie outside of the texture."""
OVERLAP = 0.01
"""Share of a texture that more than one face may claim."""
INTRICATE = 2
"""A surface with this many times more faces than it was simplified to is noise."""


@register("mesh-exporter")
class MeshExporter(BaseExporter):
    """Isosurface, clean, simplify, unwrap, bake.

    The surface of a field (volume, signed distance, tetrahedra, Gaussians) is cleaned. Triangles that were
    given (`custom-mesh`) keep their shape, and their texture coordinates where they have any.
    """

    @dataclass(kw_only=True)
    class Config(BaseExporter.Config):
        """Options."""

        fmt: str = "glb"
        """glb (one file), obj-mtl (with material and textures), obj (with vertex colours), ply (vertex
        colours), stl (shape only, closed), usd, usda, usdc or usdz (with textures; needs the extra `usd`)."""
        save_name: str = "model"
        """File name without suffix."""
        up_axis: str = "z"
        """Axis that points up in the file, z or y; a GLB is always y up."""
        units: str = "m"
        """What a unit of the file is: m, dm, cm, mm, in or ft (a world unit is a metre); a GLB is always in
        metres."""
        save_normal: bool = False
        """Write vertex normals into an OBJ; a GLB always has them."""
        save_uv: bool = True
        """Write texture coordinates."""
        save_texture: bool = True
        """Bake textures; without them, or without texture coordinates, colours go to the vertices."""
        texture_size: int = 1024
        """Side of the textures, texels."""
        texture_format: str = "jpg"
        """jpg or png, of the base colour; the other maps are always png."""
        texture_padding: int = 4
        """How far the values of a chart reach over its border, texels."""
        bake_normals: bool = False
        """Keep the shape that simplifying takes away as a normal map."""
        xatlas_chart_options: dict[str, Any] = field(default_factory=dict)
        """Fields of `xatlas.ChartOptions`."""
        xatlas_pack_options: dict[str, Any] = field(default_factory=dict)
        """Fields of `xatlas.PackOptions`."""
        context_type: str = "gl"
        """Read from older recipes and ignored: no graphics context is needed."""
        max_faces: int = 20_000
        """Simplify to about this many faces before unwrapping, whose time grows fast; 0 keeps all."""
        keep_components: int = 1
        """Of a field's surface keep this many connected pieces, the largest first; 0 keeps all."""
        repair: bool = True
        """Close holes of a field's surface, and part what is joined too often; of any surface for an STL."""
        smooth_iterations: int = 0
        """Passes of Taubin smoothing."""
        color_samples: int = 5
        """Points along the inward normal whose colours are composited; 1 asks at the surface only."""
        color_depth: float = 0.03
        """Length of that way through the surface, as a fraction of the asset's largest side."""
        unlit: bool = False
        """Mark a GLB's material as unlit: viewers show the colours as they are."""
        extras: dict[str, Any] = field(default_factory=dict)
        """Further entries for a GLB's extras, for example the prompt."""

        def __post_init__(self) -> None:
            if self.fmt not in SUFFIXES:
                raise ConfigError("system.exporter.fmt", self.fmt, f"one of: {', '.join(SUFFIXES)}")
            if self.up_axis not in ("y", "z"):
                raise ConfigError("system.exporter.up_axis", self.up_axis, "y or z")
            if self.units not in UNITS:
                raise ConfigError("system.exporter.units", self.units, f"one of: {', '.join(UNITS)}")
            if self.texture_format not in FORMATS:
                raise ConfigError("system.exporter.texture_format", self.texture_format, "jpg or png")
            if self.texture_size < 4:
                raise ConfigError("system.exporter.texture_size", self.texture_size, "an integer >= 4")
            if self.color_samples < 1:
                raise ConfigError("system.exporter.color_samples", self.color_samples, "an integer >= 1")
            for name in (*COUNTS, "keep_components"):
                if getattr(self, name) < 0:
                    raise ConfigError(f"system.exporter.{name}", getattr(self, name), "a number >= 0")

    cfg: Config

    def __call__(self) -> list[ExportItem]:
        """The mesh with its colours, as one item."""
        with torch.no_grad():
            detailed = self.detailed()
            mesh = self.paint(self.simplified(detailed), detailed)
        return [self._item(mesh)]

    def surface(self) -> Mesh:
        """The surface as it will be painted, world frame; errors as of `simplified`."""
        return self.simplified(self.detailed())

    def detailed(self) -> Mesh:
        """The surface with all its faces: a field's is cleaned, given triangles stay as they are."""
        mesh = self.geometry.isosurface()
        if not self._is_extracted():
            return mesh
        return smooth(self._clean(mesh), self.cfg.smooth_iterations)

    def simplified(self, mesh: Mesh) -> Mesh:
        """At most about `max_faces` faces; a mesh with texture coordinates of its own is left whole.

        Raises:
            RunFailed: cleaning left nothing.
        """
        cfg = self.cfg
        if cfg.max_faces and mesh.n_faces > cfg.max_faces and not mesh.has_uvs:
            mesh = self._clean(decimate(mesh, cfg.max_faces))
        if mesh.n_faces == 0:
            raise RunFailed(
                "The asset has no surface left after cleaning.",
                hint="set system.geometry.isosurface_threshold=auto, or train longer",
            )
        return mesh.replace(extras={**mesh.extras, "name": cfg.save_name, **cfg.extras})

    def paint(self, mesh: Mesh, detailed: Mesh | None = None) -> Mesh:
        """The mesh with baked textures or with vertex colours, as the format wants.

        `detailed` is what `bake_normals` keeps the normals of.
        """
        cfg = self.cfg
        if cfg.fmt == "stl":
            return Mesh(mesh.vertices, mesh.faces, extras=mesh.extras)
        low, high = bounding_box(mesh)
        depth = cfg.color_depth * float((high - low).max())
        colors = SurfaceColors(self.geometry, self.material, cfg.color_samples, depth)
        textured = cfg.save_texture and cfg.fmt not in WITHOUT_TEXTURE
        frame = mesh if mesh.has_uvs else None
        mesh = self._with_coordinates(mesh, textured or cfg.fmt == "obj")
        if not (textured and mesh.has_uvs):
            return mesh.replace(vertex_colors=bake_vertex_colors(mesh, colors), texture={})
        fine = detailed if cfg.bake_normals else None
        maps = bake_maps(mesh, colors, cfg.texture_size, cfg.texture_padding, fine, frame)
        return mesh.replace(texture=maps, vertex_colors=None)

    def _with_coordinates(self, mesh: Mesh, wanted: bool) -> Mesh:
        """Texture coordinates: its own where they will do, else an atlas where one is wanted."""
        cfg = self.cfg
        if not (cfg.save_uv and is_atlas(mesh)):
            mesh = mesh.replace(uvs=None, uv_faces=None)
        if mesh.has_uvs or not (wanted and cfg.save_uv and self._can_be_unwrapped(mesh)):
            return mesh
        return unwrap(mesh, cfg.texture_size, cfg.xatlas_chart_options, cfg.xatlas_pack_options)

    def _is_extracted(self) -> bool:
        """Whether the surface was looked for on a grid, and not given as triangles."""
        return hasattr(self.geometry.cfg, "isosurface_resolution")

    def _can_be_unwrapped(self, mesh: Mesh) -> bool:
        """Noise with a thousand tunnels cannot be simplified, and an atlas for it would take minutes."""
        limit = INTRICATE * self.cfg.max_faces
        if not limit or mesh.n_faces <= limit:
            return True
        log.warning(
            "The surface is too intricate for a texture (%d faces after simplifying to %d): its colours go to"
            " the vertices. Train longer, or set system.exporter.max_faces=0 to unwrap it all the same.",
            mesh.n_faces,
            self.cfg.max_faces,
        )
        return False

    def _clean(self, mesh: Mesh) -> Mesh:
        mesh = remove_degenerate_faces(merge_vertices(mesh))
        if self.cfg.repair and self._is_extracted() and mesh.n_faces and not is_closed(mesh):
            mesh, report = repaired(mesh)
            log.info("repaired the surface: %s", report)
        if self.cfg.keep_components and self._is_extracted():
            mesh = largest_components(mesh, self.cfg.keep_components)
        return mesh if volume(mesh) >= 0 else mesh.replace(faces=mesh.faces.flip(1))

    def _item(self, mesh: Mesh) -> ExportItem:
        """What tells the saver to write the mesh in the format that is wanted."""
        cfg, mesh = self.cfg, mesh.to("cpu")
        name = f"{cfg.save_name}{SUFFIXES[cfg.fmt]}"
        frame = {"up": cfg.up_axis, "units": cfg.units}
        if cfg.fmt.startswith("obj") and (cfg.up_axis, cfg.units) == ("z", "m"):
            params = {
                "mesh": mesh,
                "save_mat": cfg.fmt == "obj-mtl" and bool(mesh.texture),
                "save_normal": cfg.save_normal,
                "save_uv": cfg.save_uv and mesh.has_uvs,
                "save_vertex_color": mesh.vertex_colors is not None,
                "map_format": cfg.texture_format,
            }
            return ExportItem(save_name=name, save_type="obj", params=params)
        pictures = {"texture_format": cfg.texture_format}
        options: dict[str, dict[str, Any]] = {
            ".glb": {**pictures, "unlit": cfg.unlit},
            ".obj": {**frame, **pictures, "material": bool(mesh.texture), "normals": cfg.save_normal},
            ".ply": frame,
            ".stl": {**frame, "repair": cfg.repair},
        }
        chosen = options.get(SUFFIXES[cfg.fmt], {**frame, **pictures})
        return ExportItem(save_name=name, save_type="mesh", params={"v_pos": mesh, "options": chosen})


def is_atlas(mesh: Mesh) -> bool:
    """Whether a mesh has texture coordinates in which each face has a place of its own."""
    if mesh.uvs is None or mesh.uv_faces is None:
        return False
    inside = bool(((mesh.uvs >= -OUTSIDE) & (mesh.uvs <= 1.0 + OUTSIDE)).all())
    if inside and (uv_overlap(mesh) or 0.0) <= OVERLAP:
        return True
    log.warning("The mesh has texture coordinates that repeat or overlap: it gets new ones.")
    return False

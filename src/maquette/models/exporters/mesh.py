"""A textured triangle mesh out of any geometry that has an isosurface."""

import logging
from dataclasses import dataclass, field
from typing import Any

import torch

from maquette.core.errors import ConfigError, RunFailed
from maquette.core.registry import register
from maquette.io.remesh import decimate, smooth
from maquette.io.textures import BASE_COLOR, FORMATS
from maquette.io.uv import unwrap
from maquette.models.exporters.baking import bake_texture, bake_vertex_colors
from maquette.models.exporters.base import BaseExporter, ExportItem
from maquette.models.exporters.surface_colors import SurfaceColors
from maquette.ops.mesh import (
    Mesh,
    bounding_box,
    largest_components,
    merge_vertices,
    remove_degenerate_faces,
    volume,
)

log = logging.getLogger(__name__)

MESH_FORMATS = ("glb", "obj-mtl", "obj")

INTRICATE = 2
"""A surface with this many times more faces than it was simplified to is noise."""


@register("mesh-exporter")
class MeshExporter(BaseExporter):
    """Isosurface, clean, simplify, unwrap, bake."""

    @dataclass(kw_only=True)
    class Config(BaseExporter.Config):
        """Options."""

        fmt: str = "glb"
        """glb (one file), obj-mtl (with material and texture), or obj (with vertex colours)."""
        save_name: str = "model"
        """File name without suffix."""
        save_normal: bool = False
        """Write vertex normals into an OBJ; a GLB always has them."""
        save_uv: bool = True
        """Write texture coordinates."""
        save_texture: bool = True
        """Bake a texture; without it, or without texture coordinates, colours go to the vertices."""
        texture_size: int = 1024
        """Side of the texture, texels."""
        texture_format: str = "jpg"
        """jpg or png."""
        texture_padding: int = 4
        """How far the colours of a chart reach over its border, texels."""
        xatlas_chart_options: dict[str, Any] = field(default_factory=dict)
        """Fields of `xatlas.ChartOptions`."""
        xatlas_pack_options: dict[str, Any] = field(default_factory=dict)
        """Fields of `xatlas.PackOptions`."""
        context_type: str = "gl"
        """Read from older recipes and ignored: no graphics context is needed."""
        max_faces: int = 20_000
        """Simplify to about this many faces before unwrapping, whose time grows fast; 0 keeps all."""
        keep_components: int = 1
        """Keep this many connected pieces, the largest first; 0 keeps all."""
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
            if self.fmt not in MESH_FORMATS:
                raise ConfigError("system.exporter.fmt", self.fmt, f"one of: {', '.join(MESH_FORMATS)}")
            if self.texture_format not in FORMATS:
                raise ConfigError("system.exporter.texture_format", self.texture_format, "jpg or png")
            if self.texture_size < 4:
                raise ConfigError("system.exporter.texture_size", self.texture_size, "an integer >= 4")
            if self.color_samples < 1:
                raise ConfigError("system.exporter.color_samples", self.color_samples, "an integer >= 1")
            for name in (
                "max_faces",
                "keep_components",
                "smooth_iterations",
                "texture_padding",
                "color_depth",
            ):
                if getattr(self, name) < 0:
                    raise ConfigError(f"system.exporter.{name}", getattr(self, name), "a number >= 0")

    cfg: Config

    def __call__(self) -> list[ExportItem]:
        """The mesh with its colours, as one item."""
        with torch.no_grad():
            mesh = self.surface()
            mesh = self.paint(mesh)
        return [self._item(mesh)]

    def surface(self) -> Mesh:
        """The cleaned and simplified surface, world frame.

        Raises:
            RunFailed: cleaning left nothing.
        """
        cfg = self.cfg
        mesh = self._clean(self.geometry.isosurface())
        mesh = smooth(mesh, cfg.smooth_iterations)
        if cfg.max_faces and mesh.n_faces > cfg.max_faces:
            mesh = self._clean(decimate(mesh, cfg.max_faces))
        if mesh.n_faces == 0:
            raise RunFailed(
                "The asset has no surface left after cleaning.",
                hint="set system.geometry.isosurface_threshold=auto, or train longer",
            )
        return mesh.replace(extras={**mesh.extras, "name": cfg.save_name, **cfg.extras})

    def paint(self, mesh: Mesh) -> Mesh:
        """The mesh with a baked texture or with vertex colours, as the format wants."""
        cfg = self.cfg
        low, high = bounding_box(mesh)
        depth = cfg.color_depth * float((high - low).max())
        colors = SurfaceColors(self.geometry, self.material, cfg.color_samples, depth)
        if cfg.save_uv and (cfg.save_texture or cfg.fmt == "obj") and self._can_be_unwrapped(mesh):
            mesh = unwrap(mesh, cfg.texture_size, cfg.xatlas_chart_options, cfg.xatlas_pack_options)
        if cfg.fmt == "obj" or not (mesh.has_uvs and cfg.save_texture):
            return mesh.replace(vertex_colors=bake_vertex_colors(mesh, colors))
        texture = bake_texture(mesh, colors, cfg.texture_size, cfg.texture_padding)
        return mesh.replace(texture={BASE_COLOR: texture})

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
        if self.cfg.keep_components:
            mesh = largest_components(mesh, self.cfg.keep_components)
        return mesh if volume(mesh) >= 0 else mesh.replace(faces=mesh.faces.flip(1))

    def _item(self, mesh: Mesh) -> ExportItem:
        cfg = self.cfg
        if cfg.fmt == "glb":
            options = {"texture_format": cfg.texture_format, "unlit": cfg.unlit}
            params = {"v_pos": mesh.to("cpu"), "options": options}
            return ExportItem(save_name=f"{cfg.save_name}.glb", save_type="mesh", params=params)
        params = {
            "mesh": mesh.to("cpu"),
            "save_mat": cfg.fmt == "obj-mtl" and bool(mesh.texture),
            "save_normal": cfg.save_normal,
            "save_uv": cfg.save_uv and mesh.has_uvs,
            "save_vertex_color": mesh.vertex_colors is not None,
            "map_format": cfg.texture_format,
        }
        return ExportItem(save_name=f"{cfg.save_name}.obj", save_type="obj", params=params)

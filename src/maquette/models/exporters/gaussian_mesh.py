"""Gaussians as a mesh for every program, and as splats for those that show them."""

from dataclasses import dataclass
from typing import Any

import torch

from maquette.core.errors import ConfigError
from maquette.core.registry import register
from maquette.models.exporters.base import ExportItem
from maquette.models.exporters.mesh import MeshExporter
from maquette.models.geometry.base import BaseGeometry
from maquette.models.materials.base import BaseMaterial


@register("gaussian-mesh-exporter")
class GaussianMeshExporter(MeshExporter):
    """What `mesh-exporter` writes, and beside it the Gaussians themselves as a PLY of splats."""

    @dataclass(kw_only=True)
    class Config(MeshExporter.Config):
        """Options."""

        fmt: str = "obj"
        """glb (one file), obj-mtl (with material and texture), or obj (with vertex colours)."""
        save_video: bool = True
        """Also render the test views of the representation itself and save them as a video."""
        save_splats: bool = True
        """Write the Gaussians, as NAME-splats.ply."""

    def configure(self, geometry: BaseGeometry, material: BaseMaterial, background: Any = None) -> None:
        """Keep what will be exported.

        Raises:
            ConfigError: the geometry is no cloud of Gaussians.
        """
        super().configure(geometry, material, background)
        if not hasattr(geometry, "gaussians"):
            raise ConfigError("system.geometry_type", type(geometry).__name__, "gaussian-splatting")

    def __call__(self) -> list[ExportItem]:
        """The mesh first, then the splats."""
        items = super().__call__()
        if not self.cfg.save_splats:
            return items
        with torch.no_grad():
            gaussians = self.geometry.gaussians().detach().to("cpu")
        name = f"{self.cfg.save_name}-splats.ply"
        return [*items, ExportItem(save_name=name, save_type="splats", params={"gaussians": gaussians})]

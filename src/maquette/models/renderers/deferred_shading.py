"""Deferred shading: first what the surface is, pixel by pixel, then how it looks."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.core.registry import register
from maquette.kernels.rasterize import antialias
from maquette.models.geometry.base import POINTS_PER_CHUNK, GeometryOutput
from maquette.models.renderers.mesh_rasterizer import (
    Light,
    MeshRasterizer,
    SurfacePoints,
    project,
    surface_points,
)
from maquette.ops.mesh import Mesh
from maquette.ops.shading import normal_to_color

FAINT = 1e-3
"""Opacity below which a pixel is not shaded."""


@register("deferred-shading-rasterizer")
class DeferredShadingRasterizer(MeshRasterizer):
    """Positions, normals and features are drawn with several samples a pixel, and shaded once a pixel.

    The way of Deering et al. 1988, "The triangle processor and normal vector shader". Features are filtered
    before they are shaded, so that fine texture does not flicker, and an expensive material is asked once
    for each pixel only. `extras` has `position` (B, H, W, 3) and `features` (B, H, W, F), times opacity.
    """

    @dataclass(kw_only=True)
    class Config(MeshRasterizer.Config):
        """Options."""

        samples: int = 2
        """Samples along each side of a pixel."""

        def __post_init__(self) -> None:
            if not 1 <= self.samples <= 8:
                raise ConfigError("system.renderer.samples", self.samples, "an integer from 1 to 8")

    def draw(
        self, mesh: Mesh, mvp_mtx: Tensor, size: tuple[int, int], light: Light, render_rgb: bool
    ) -> dict[str, Tensor]:
        """Opacity, depth, normals and, where asked and seen, colours before black; and the buffers."""
        buffers = self.buffers(mesh, mvp_mtx, size)
        points, features = self._pixels(buffers)
        opacity = buffers["opacity"]
        share = opacity.reshape(-1, 1)[points.pixel]
        distance = (points.positions - light.camera_positions[points.view]).norm(dim=-1, keepdim=True)
        pixels = {"depth": distance * share, "comp_normal": normal_to_color(points.normals) * share}
        if render_rgb and len(points.pixel) > 0:
            pixels["comp_rgb_fg"] = self._lit(points, features, light) * share
        shown = {name: _picture(value, points, opacity) for name, value in pixels.items()}
        return {"opacity": opacity, **shown, "position": buffers["position"], "features": buffers["features"]}

    def buffers(
        self, mesh: Mesh, mvp_mtx: Float[Tensor, "B 4 4"], size: tuple[int, int]
    ) -> dict[str, Float[Tensor, "B H W C"]]:
        """Opacity, position, normal, features and tangent of pixels: sums over samples, not divided."""
        height, width = (side * self.cfg.samples for side in size)
        clip, fragments = project(mesh, mvp_mtx, (height, width))
        points = surface_points(mesh, fragments, self.material.requires_tangent)
        chunk = max(1, len(points.pixel) if self.training else POINTS_PER_CHUNK)
        features = torch.cat([self.features(part)["features"] for part in points.chunks(chunk)])
        values = {
            "opacity": torch.ones_like(points.positions[:, :1]),
            "position": points.positions,
            "normal": points.normals,
            "features": features,
        }
        if points.tangents is not None:
            values["tangent"] = points.tangents
        flat = torch.cat(list(values.values()), dim=-1)
        picture = flat.new_zeros(fragments.face.numel(), flat.shape[-1]).index_copy(0, points.pixel, flat)
        blended = antialias(picture.reshape(*fragments.face.shape, -1), fragments, clip, mesh.faces)
        pooled = F.avg_pool2d(blended.permute(0, 3, 1, 2), self.cfg.samples).permute(0, 2, 3, 1)
        pooled = pooled + self._anchor() if len(points.pixel) == 0 else pooled
        parts = pooled.split([value.shape[-1] for value in values.values()], dim=-1)
        return dict(zip(values, parts, strict=True))

    def _pixels(self, buffers: dict[str, Tensor]) -> tuple[SurfacePoints, Tensor]:
        """The places that pixels show on average, and the features there."""
        flat: dict[str, Any] = {name: value.flatten(0, 2) for name, value in buffers.items()}
        pixel = (flat["opacity"][:, 0] > FAINT).nonzero()[:, 0]
        share = flat["opacity"][pixel]
        tangents = flat["tangent"][pixel] if "tangent" in flat else None
        if tangents is not None:
            sign = torch.where(tangents[:, 3:] < 0, -1.0, 1.0)
            tangents = torch.cat([F.normalize(tangents[:, :3], dim=-1), sign], dim=-1)
        points = SurfacePoints(
            pixel=pixel,
            view=pixel // buffers["opacity"][0].numel(),
            positions=flat["position"][pixel] / share,
            normals=F.normalize(flat["normal"][pixel], dim=-1),
            tangents=tangents,
        )
        return points, flat["features"][pixel] / share

    def _lit(self, points: SurfacePoints, features: Tensor, light: Light) -> Tensor:
        chunk = max(1, len(points.pixel) if self.training else POINTS_PER_CHUNK)
        parts = zip(points.chunks(chunk), features.split(chunk), strict=True)
        return torch.cat([self.shade(GeometryOutput(features=one), part, light) for part, one in parts])


def _picture(values: Tensor, points: SurfacePoints, like: Tensor) -> Tensor:
    """Values of pixels in their places, zero elsewhere."""
    picture = values.new_zeros(like.numel(), values.shape[-1]).index_copy(0, points.pixel, values)
    return picture.reshape(*like.shape[:3], -1)

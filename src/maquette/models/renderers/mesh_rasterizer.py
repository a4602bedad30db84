"""The surface of a geometry as triangles, drawn with gradients."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.device import autocast_off
from maquette.core.random import StepRandom
from maquette.core.registry import register
from maquette.kernels.rasterize import Fragments, antialias, interpolate, rasterize
from maquette.models.backgrounds.base import BaseBackground
from maquette.models.geometry.base import POINTS_PER_CHUNK, BaseGeometry, GeometryOutput
from maquette.models.materials.base import BaseMaterial
from maquette.models.renderers.base import BaseRenderer, RenderOutput
from maquette.ops.mesh import Mesh, vertex_normals
from maquette.ops.shading import normal_to_color
from maquette.ops.tangents import mesh_tangents
from maquette.ops.transforms import world_to_clip


@dataclass
class SurfacePoints:
    """The N places of a surface that pixels show, of all views."""

    pixel: Int[Tensor, "N"]
    """Number of the pixel, counted over all views."""
    view: Int[Tensor, "N"]
    positions: Float[Tensor, "N 3"]
    normals: Float[Tensor, "N 3"]
    """Smooth, of unit length."""
    tangents: Float[Tensor, "N 4"] | None = None
    """Unit tangent and the sign of the bitangent."""

    def chunks(self, size: int) -> Iterator["SurfacePoints"]:
        """Parts of at most `size` points, at least one."""
        for start in range(0, max(1, len(self.pixel)), size):
            rows = slice(start, start + size)
            tangents = None if self.tangents is None else self.tangents[rows]
            yield SurfacePoints(
                self.pixel[rows], self.view[rows], self.positions[rows], self.normals[rows], tangents
            )


@dataclass
class Light:
    """What shading needs of a batch, beside points."""

    camera_positions: Float[Tensor, "B 3"]
    light_positions: Float[Tensor, "B 3"]
    rng: StepRandom | None
    material_args: dict[str, Any]


@register("nvdiff-rasterizer")
@register("mesh-rasterizer")
class MeshRasterizer(BaseRenderer):
    """Draws the isosurface of any geometry: shape by silhouettes and shading, colour once for each pixel.

    Vertices carry gradients where the geometry's `isosurface` gives them (`kernels.rasterize`, Laine et al.
    2020). In evaluation the surface is made once and kept until the geometry changes.
    """

    @dataclass(kw_only=True)
    class Config(BaseRenderer.Config):
        """Options."""

        context_type: str = "gl"
        """Read from older recipes and ignored: there is no graphics context."""

    def configure(
        self,
        geometry: BaseGeometry,
        material: BaseMaterial,
        background: BaseBackground,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Keep the references."""
        super().configure(geometry, material, background)
        self._kept: tuple[Any, Mesh] | None = None

    def forward(
        self,
        mvp_mtx: Float[Tensor, "B 4 4"],
        camera_positions: Float[Tensor, "B 3"],
        light_positions: Float[Tensor, "B 3"],
        height: int,
        width: int,
        render_rgb: bool = True,
        bg_color: Tensor | None = None,
        rng: StepRandom | None = None,
        **kwargs: Any,
    ) -> RenderOutput:
        """Pictures of a batch of cameras, blended at silhouettes.

        `depth` is the distance from the camera times the opacity, `extras["mesh"]` what was drawn. A mesh
        without faces is the background alone, with gradients of zero.

        Args:
            mvp_mtx: world to clip.
            camera_positions: world positions.
            light_positions: a light for each view.
            height: rows.
            width: columns.
            render_rgb: without it there are no colours.
            bg_color: (B, C) or (B, H, W, C), takes the place of the background.
            rng: source of random draws; without it nothing is random.
            kwargs: the rest of the camera batch, given on to the material in training.
        """
        mesh = self.surface()
        drawn = (rng, kwargs) if self.training else (None, {})
        light = Light(camera_positions, light_positions, *drawn)
        out = RenderOutput(extras={"mesh": mesh})
        out.update(self.draw(mesh, mvp_mtx, (height, width), light, render_rgb))
        assert out.opacity is not None
        if render_rgb:
            behind = self._behind(bg_color, mvp_mtx, camera_positions, (height, width), rng)
            out.comp_rgb_bg = behind
            out.comp_rgb_fg = out.comp_rgb_fg if "comp_rgb_fg" in out else torch.zeros_like(behind)
            out.comp_rgb = out.comp_rgb_fg + behind * (1.0 - out.opacity)
        return out

    def draw(
        self, mesh: Mesh, mvp_mtx: Tensor, size: tuple[int, int], light: Light, render_rgb: bool
    ) -> dict[str, Tensor]:
        """Opacity, depth, normals and, where asked and seen, colours before black."""
        clip, fragments = project(mesh, mvp_mtx, size)
        points = surface_points(mesh, fragments, self.material.requires_tangent)
        values = {
            "opacity": torch.ones_like(points.positions[:, :1]),
            "depth": (points.positions - light.camera_positions[points.view]).norm(dim=-1, keepdim=True),
            "comp_normal": normal_to_color(points.normals),
        }
        if render_rgb and len(points.pixel) > 0:
            values["comp_rgb_fg"] = self.colors(points, light)
        flat = torch.cat(list(values.values()), dim=-1)
        picture = flat.new_zeros(fragments.face.numel(), flat.shape[-1]).index_copy(0, points.pixel, flat)
        blended = antialias(picture.reshape(*fragments.face.shape, -1), fragments, clip, mesh.faces)
        blended = blended + self._anchor() if len(points.pixel) == 0 else blended
        parts = blended.split([value.shape[-1] for value in values.values()], dim=-1)
        return dict(zip(values, parts, strict=True))

    def colors(self, points: SurfacePoints, light: Light) -> Float[Tensor, "N C"]:
        """What the material makes of surface points."""
        size = len(points.pixel) if self.training else POINTS_PER_CHUNK
        return torch.cat([self._shade(part, light) for part in points.chunks(max(1, size))])

    def surface(self) -> Mesh:
        """The mesh of the geometry; without gradients it is kept until a parameter or buffer changes."""
        if self.training or torch.is_grad_enabled():
            return self.geometry.isosurface()
        held = [*self.geometry.parameters(), *self.geometry.buffers()]
        state = id(self.geometry), [(value.data_ptr(), value._version) for value in held]
        if self._kept is None or self._kept[0] != state:
            self._kept = state, self.geometry.isosurface()
        return self._kept[1]

    def features(self, points: SurfacePoints) -> GeometryOutput:
        """The features at surface points."""
        out = self.geometry(points.positions, output_normal=False)
        if out.features is None:
            out.features = points.positions.new_zeros(len(points.positions), 0)
        return out

    def shade(self, geometry: GeometryOutput, points: SurfacePoints, light: Light) -> Float[Tensor, "N C"]:
        """Colours of points with features."""
        arguments = {**light.material_args, **geometry}
        if self.material.requires_normal:
            arguments["shading_normal"] = points.normals
        if points.tangents is not None:
            arguments["tangent"] = points.tangents
        return self.material(
            viewdirs=F.normalize(points.positions - light.camera_positions[points.view], dim=-1),
            positions=points.positions,
            light_positions=light.light_positions[points.view],
            rng=light.rng,
            **arguments,
        )

    def _shade(self, points: SurfacePoints, light: Light) -> Tensor:
        return self.shade(self.features(points), points, light)

    def _behind(
        self,
        bg_color: Tensor | None,
        mvp_mtx: Tensor,
        camera_positions: Tensor,
        size: tuple[int, int],
        rng: StepRandom | None,
    ) -> Float[Tensor, "B H W C"]:
        if bg_color is None:
            return self.background(dirs=view_directions(mvp_mtx, camera_positions, size), rng=rng)
        if bg_color.ndim == 2:
            return bg_color[:, None, None, :].expand(-1, *size, -1)
        return bg_color

    def _anchor(self) -> Tensor | float:
        """Zero, with gradients of zero for the geometry: what nobody sees can still be trained on."""
        trained = [value for value in self.geometry.parameters() if value.requires_grad]
        return sum((value.reshape(-1)[:1].nan_to_num() * 0.0).sum() for value in trained)


def project(
    mesh: Mesh, mvp_mtx: Float[Tensor, "B 4 4"], size: tuple[int, int]
) -> tuple[Float[Tensor, "B V 4"], Fragments]:
    """The vertices in clip space and what each pixel sees."""
    with autocast_off(mvp_mtx.device):
        clip = world_to_clip(mesh.vertices.float().expand(len(mvp_mtx), -1, 3), mvp_mtx.float())
    return clip, rasterize(clip, mesh.faces, *size)


def surface_points(mesh: Mesh, fragments: Fragments, tangents: bool = False) -> SurfacePoints:
    """The places that pixels show; with `tangents` also those, if the mesh has texture coordinates."""
    pixel = fragments.mask.reshape(-1).nonzero()[:, 0]
    placed = torch.cat([mesh.vertices, vertex_normals(mesh)], dim=-1)
    values = interpolate(placed, fragments, mesh.faces).reshape(-1, 6)[pixel]
    points = SurfacePoints(
        pixel=pixel,
        view=pixel // fragments.face[0].numel(),
        positions=values[:, :3],
        normals=F.normalize(values[:, 3:], dim=-1),
    )
    if tangents and mesh.has_uvs:
        corners, faces = mesh_tangents(mesh)
        values = interpolate(corners, fragments, faces).reshape(-1, 4)[pixel]
        sign = torch.where(values[:, 3:] < 0, -1.0, 1.0)
        points.tangents = torch.cat([F.normalize(values[:, :3], dim=-1), sign], dim=-1)
    return points


def view_directions(
    mvp_mtx: Float[Tensor, "B 4 4"], camera_positions: Float[Tensor, "B 3"], size: tuple[int, int]
) -> Float[Tensor, "B H W 3"]:
    """Unit world directions from the camera through the centres of pixels."""
    height, width = size
    x = (2.0 * torch.arange(width, device=mvp_mtx.device) + 1.0) / width - 1.0
    y = (2.0 * torch.arange(height, device=mvp_mtx.device) + 1.0) / height - 1.0
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    ones = torch.ones_like(rows)
    far = torch.stack([columns, rows, ones, ones], dim=-1).to(mvp_mtx).reshape(-1, 4)
    with autocast_off(mvp_mtx.device):
        points = far @ torch.linalg.inv(mvp_mtx).mT
    directions = points[..., :3] / points[..., 3:] - camera_positions[:, None]
    return F.normalize(directions, dim=-1).reshape(len(mvp_mtx), height, width, 3)

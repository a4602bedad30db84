"""Pictures of Gaussians by splatting (Kerbl et al. 2023), under the names of the ecosystem's rasterizers."""

from dataclasses import dataclass
from typing import Any, Protocol, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maquette.core.device import autocast_off
from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom
from maquette.core.registry import register
from maquette.kernels.gaussians import Primitive, Splats, sh_colors, splat
from maquette.models.backgrounds.base import BaseBackground
from maquette.models.geometry.base import BaseGeometry
from maquette.models.materials.base import BaseMaterial
from maquette.models.renderers.base import BaseRenderer, RenderOutput
from maquette.ops.gaussians import Gaussians, normals_of_points, points_of_depth, sh_to_colors, view_rays
from maquette.ops.shading import normal_to_color
from maquette.ops.transforms import gl_to_cv, intrinsics, invert_rigid

PRIMITIVES = get_args(Primitive)
FAINT = 1e-2
"""Opacity below which a pixel has no depth of its own."""


class GaussianCloud(Protocol):
    """What a geometry needs to be drawn here."""

    def gaussians(self) -> Gaussians:
        """The Gaussians, with gradients."""
        ...

    def predicted_normals(self) -> Float[Tensor, "N 3"] | None:
        """A normal for each, if they are learned."""
        ...


@dataclass
class Cameras:
    """B pinhole cameras, of OpenCV's kind."""

    c2w: Float[Tensor, "B 4 4"]
    intrinsics: Float[Tensor, "B 3 3"]
    height: int
    width: int

    @property
    def rays(self) -> Float[Tensor, "B H W 3"]:
        """Directions through pixel centres in the cameras' frame, of length one along their axis."""
        return view_rays(self.intrinsics, self.height, self.width)

    @property
    def positions(self) -> Float[Tensor, "B 3"]:
        """World positions."""
        return self.c2w[:, :3, 3]


class _GaussianRenderer(BaseRenderer):
    """What all of them do: project, splat, and put something behind."""

    @dataclass(kw_only=True)
    class Config(BaseRenderer.Config):
        """Options of every rasterizer of Gaussians."""

        debug: bool = False
        """Read from older recipes and ignored: the kernel has no such mode."""
        back_ground_color: tuple[float, float, float] = (1.0, 1.0, 1.0)
        """Colour behind the Gaussians, for the rasterizers that do not ask the background module."""
        primitive: str = "3d"
        """3d (Kerbl et al. 2023), or 2d (Huang et al. 2024), which sets the third scale to `FLAT`; meshes and
        exports are flat too."""

        def __post_init__(self) -> None:
            if self.primitive not in PRIMITIVES:
                raise ConfigError("system.renderer.primitive", self.primitive, f"one of {PRIMITIVES}")
            if not all(0.0 <= value <= 1.0 for value in self.back_ground_color):
                color = list(self.back_ground_color)
                raise ConfigError("system.renderer.back_ground_color", color, "three numbers, 0 to 1")

    asks_background: bool = False
    """Whether the background module is behind, and not one colour."""
    asks_normals: bool = False
    """Whether normals are wanted in training too."""

    def configure(
        self,
        geometry: BaseGeometry,
        material: BaseMaterial,
        background: BaseBackground,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Keep the references; with `primitive` 2d, flatten the cloud.

        Raises:
            ConfigError: the geometry is no cloud of Gaussians.
        """
        super().configure(geometry, material, background)
        if not hasattr(geometry, "gaussians"):
            raise ConfigError("system.geometry_type", type(geometry).__name__, "gaussian-splatting")
        if self.cfg.primitive == "2d" and hasattr(geometry, "flatten"):
            geometry.flatten()

    def forward(
        self,
        c2w: Float[Tensor, "B 4 4"],
        proj_mtx: Float[Tensor, "B 4 4"],
        height: int,
        width: int,
        bg_color: Tensor | None = None,
        rng: StepRandom | None = None,
        **kwargs: Any,
    ) -> RenderOutput:
        """Pictures of a batch of cameras.

        `depth` is the weighted sum of distances along the rays. `extras` has, for each view and Gaussian,
        what densification reads: `viewspace_points` (B, N, 2), positions in pixels that keep their gradient,
        `radii` (B, N) in pixels, and `visibility_filter` (B, N).

        Args:
            c2w: OpenGL cameras.
            proj_mtx: projections; pictures may be rectangular, the principal point off the middle.
            height: rows.
            width: columns.
            bg_color: (B, C) or (B, H, W, C), takes the place of the background.
            rng: source of random draws; without it nothing is random.
            kwargs: the rest of the camera batch, given on to the material in training.
        """
        cameras = Cameras(gl_to_cv(c2w), intrinsics(proj_mtx, height, width), height, width)
        with autocast_off(c2w.device):
            out = self.draw(cameras, rng=rng, **kwargs)
            assert out.comp_rgb_fg is not None and out.opacity is not None
            out.comp_rgb_bg = self._behind(out.comp_rgb_fg, cameras, bg_color, rng)
        out.comp_rgb = out.comp_rgb_fg + out.comp_rgb_bg * (1.0 - out.opacity)
        return out

    def draw(self, cameras: Cameras, **kwargs: Any) -> RenderOutput:
        """The Gaussians before black."""
        gaussians = self.cloud.gaussians()
        colors = seen_colors(gaussians, cameras.positions)
        splats = self.splat(gaussians, colors, cameras, normals=self.asks_normals or not self.training)
        return pictures(splats, cameras)

    def splat(self, gaussians: Gaussians, colors: Tensor, cameras: Cameras, normals: bool) -> Splats:
        """Call the kernel; in training the screen positions keep their gradient."""
        splats = splat(
            gaussians.means,
            gaussians.rotations,
            gaussians.scales,
            gaussians.opacities,
            colors,
            invert_rigid(cameras.c2w),
            cameras.intrinsics,
            cameras.height,
            cameras.width,
            primitive=self.cfg.primitive,
            normals=normals,
        )
        if splats.means2d.requires_grad:
            splats.means2d.retain_grad()
        return splats

    @property
    def cloud(self) -> GaussianCloud:
        """The geometry."""
        return cast(GaussianCloud, self.geometry)

    def back_color(self, rng: StepRandom | None) -> list[float]:
        """The colour behind, without a background module."""
        return list(self.cfg.back_ground_color)

    def _behind(
        self, like: Tensor, cameras: Cameras, bg_color: Tensor | None, rng: StepRandom | None
    ) -> Float[Tensor, "B H W C"]:
        if bg_color is not None:
            return bg_color[:, None, None, :].expand_as(like) if bg_color.ndim == 2 else bg_color
        if not self.asks_background:
            return like.new_tensor(self.back_color(rng)).expand_as(like)
        directions = F.normalize(cameras.rays, dim=-1) @ cameras.c2w[:, None, :3, :3].mT
        return self.background(dirs=directions, rng=rng)


@register("diff-gaussian-rasterizer")
class GaussianRasterizer(_GaussianRenderer):
    """Gaussians before one colour."""

    @dataclass(kw_only=True)
    class Config(_GaussianRenderer.Config):
        """Options."""

        invert_bg_prob: float = 1.0
        """A training step inverts the colour behind if a uniform draw is above this."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0.0 <= self.invert_bg_prob <= 1.0:
                raise ConfigError("system.renderer.invert_bg_prob", self.invert_bg_prob, "a number, 0 to 1")

    def back_color(self, rng: StepRandom | None) -> list[float]:
        """The colour behind, inverted at random."""
        color = super().back_color(rng)
        if not self.training or rng is None:
            return color
        inverted = rng.shared("renderer/invert_background") > self.cfg.invert_bg_prob
        return [1.0 - value for value in color] if inverted else color


@register("diff-gaussian-rasterizer-advanced")
class GaussianRasterizerAdvanced(GaussianRasterizer):
    """The same, with normals of the Gaussians in training too; all of them give depth."""

    asks_normals = True


@register("diff-gaussian-rasterizer-background")
class GaussianRasterizerBackground(_GaussianRenderer):
    """Gaussians before the background module of the recipe."""

    asks_background = True


@register("diff-gaussian-rasterizer-shading")
class GaussianRasterizerShading(_GaussianRenderer):
    """Gaussians that the material shades, pixel by pixel, before the background module of the recipe.

    Normals are the learned ones (`pred_normal` of the geometry), or else those of the depth picture. Its
    material is `gaussian-diffuse-with-point-light-material`.
    """

    asks_background = True

    def draw(self, cameras: Cameras, **kwargs: Any) -> RenderOutput:
        """The lit Gaussians before black."""
        gaussians, learned = self.cloud.gaussians(), self.cloud.predicted_normals()
        colors = seen_colors(gaussians, cameras.positions)
        if learned is not None:
            colors = torch.cat([colors, learned.expand(*colors.shape[:-1], 3)], dim=-1)
        splats = self.splat(gaussians, colors, cameras, normals=False)
        solid = splats.opacity.clamp(min=FAINT)
        depth = torch.where(splats.opacity > FAINT, splats.depth / solid, torch.ones_like(solid))
        points = points_of_depth(depth, cameras.intrinsics, cameras.c2w)
        normal = (
            normals_of_points(points, cameras.positions)
            if learned is None
            else F.normalize(splats.color[..., 3:], dim=-1)
        )
        out = pictures(splats, cameras)
        out.comp_rgb_fg = splats.opacity * self._lit(
            splats.color[..., :3] / solid, points, normal, cameras, **kwargs
        )
        out.comp_normal = normal_picture(normal, splats.opacity)
        return out

    def _lit(
        self,
        albedo: Tensor,
        points: Tensor,
        normal: Tensor,
        cameras: Cameras,
        light_positions: Float[Tensor, "B 3"],
        rng: StepRandom | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "B H W 3"]:
        return self.material(
            features=albedo,
            viewdirs=F.normalize(points - cameras.positions[:, None, None], dim=-1),
            positions=points,
            shading_normal=normal,
            light_positions=light_positions[:, None, None].expand_as(points),
            rng=rng,
            **(kwargs if self.training else {}),
        )


def seen_colors(
    gaussians: Gaussians, camera_positions: Float[Tensor, "B 3"]
) -> Float[Tensor, "N 3"] | Float[Tensor, "B N 3"]:
    """Colours towards each camera, or one for all where they do not depend on the direction."""
    if gaussians.sh_degree == 0:
        return sh_to_colors(gaussians.sh[:, 0]).clamp(min=0.0)
    return sh_colors(gaussians.sh, gaussians.means, camera_positions, gaussians.sh_degree)


def pictures(splats: Splats, cameras: Cameras) -> RenderOutput:
    """What the kernel gives, as this room's renderers give it."""
    out = RenderOutput(
        comp_rgb_fg=splats.color,
        opacity=splats.opacity,
        depth=splats.depth * cameras.rays.norm(dim=-1, keepdim=True),
        extras={
            "viewspace_points": splats.means2d,
            "radii": splats.radii,
            "visibility_filter": splats.radii > 0,
        },
    )
    if splats.normal is not None:
        out.comp_normal = normal_picture(F.normalize(splats.normal, dim=-1), splats.opacity)
    return out


def normal_picture(
    normal: Float[Tensor, "B H W 3"], opacity: Float[Tensor, "B H W 1"]
) -> Float[Tensor, "B H W 3"]:
    """Unit world normals as (n + 1) / 2, times opacity."""
    return normal_to_color(normal) * opacity

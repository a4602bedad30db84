"""A view at low resolution with one sharp patch in it, for pictures too large to be trained on whole."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom
from maquette.core.registry import find, register
from maquette.models.backgrounds.base import BaseBackground
from maquette.models.geometry.base import BaseGeometry
from maquette.models.materials.base import BaseMaterial
from maquette.models.renderers.base import BaseRenderer, RenderOutput

UNIT = 1e-3
"""Directions whose lengths are this close to one count as unit vectors."""


@register("patch-renderer")
class PatchRenderer(BaseRenderer):
    """In training the whole view at a fraction of the resolution, and over it a random patch at all of it.

    What belongs to pixels is put together at full size. What belongs to samples along rays (`weights`,
    `points`, ...) is that of the whole view. In evaluation the base renderer draws alone.
    """

    @dataclass(kw_only=True)
    class Config(BaseRenderer.Config):
        """Options."""

        patch_size: int = 128
        """Side of the patch, pixels; a smaller picture is its own patch."""
        base_renderer_type: str = ""
        """Registered name of the renderer that draws both; one that follows rays."""
        base_renderer: dict[str, Any] | None = None
        """Its config."""
        global_detach: bool = False
        """Let only the patch have gradients."""
        global_downsample: int = 4
        """The whole view has this many times fewer rows and columns."""

        def __post_init__(self) -> None:
            for name in ("patch_size", "global_downsample"):
                if getattr(self, name) < 1:
                    raise ConfigError(f"system.renderer.{name}", getattr(self, name), "an integer above 0")

    def configure(
        self,
        geometry: BaseGeometry,
        material: BaseMaterial,
        background: BaseBackground,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Build the base renderer."""
        super().configure(geometry, material, background)
        name = self.cfg.base_renderer_type
        key = "system.renderer.base_renderer_type"
        if not name:
            raise ConfigError(key, name, "the registered name of a renderer")
        cls = find(name, "renderer")
        if "rays_o" not in inspect.signature(cls.forward).parameters or cls is PatchRenderer:
            raise ConfigError(key, name, "a renderer that follows rays, for example nerf-volume-renderer")
        self.base_renderer: BaseRenderer = cls(
            self.cfg.base_renderer, geometry=geometry, material=material, background=background
        )

    def refer_to(self, **modules: Any) -> None:
        """Exchange what is drawn, in the base renderer too."""
        super().refer_to(**modules)
        if hasattr(self, "base_renderer"):
            self.base_renderer.refer_to(**modules)

    def forward(
        self,
        rays_o: Float[Tensor, "B H W 3"],
        rays_d: Float[Tensor, "B H W 3"],
        light_positions: Float[Tensor, "B 3"],
        bg_color: Tensor | None = None,
        rng: StepRandom | None = None,
        **kwargs: Any,
    ) -> RenderOutput:
        """Pictures along world rays; see `BaseRenderer.forward`. Without `rng` the patch is in the middle."""
        common = {"light_positions": light_positions, "rng": rng, **kwargs}
        if not self.training:
            return self.base_renderer(rays_o=rays_o, rays_d=rays_d, bg_color=bg_color, **common)
        height, width = rays_o.shape[1:3]
        rows, columns = self._patch(height, width, rng)
        whole = self._drawn(*self._shrunk(rays_o, rays_d, bg_color), common)
        patch = self._drawn(
            rays_o[:, rows, columns], rays_d[:, rows, columns], _cut(bg_color, rows, columns), common
        )
        return self._merged(whole, patch, (height, width), rows, columns)

    def _drawn(
        self, rays_o: Tensor, rays_d: Tensor, bg_color: Tensor | None, common: dict[str, Any]
    ) -> RenderOutput:
        size = {"height": rays_o.shape[1], "width": rays_o.shape[2]}
        return self.base_renderer(rays_o=rays_o, rays_d=rays_d, bg_color=bg_color, **{**common, **size})

    def _patch(self, height: int, width: int, rng: StepRandom | None) -> tuple[slice, slice]:
        """Rows and columns of the patch: the same in all views and on every rank."""
        slices = []
        for name, length in (("renderer/patch_row", height), ("renderer/patch_column", width)):
            size = min(self.cfg.patch_size, length)
            share = 0.5 if rng is None else rng.shared(name)
            first = int(share * (length - size + 1))
            slices.append(slice(first, first + size))
        return slices[0], slices[1]

    def _shrunk(
        self, rays_o: Tensor, rays_d: Tensor, bg_color: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        height, width = rays_o.shape[1:3]
        size = (max(1, height // self.cfg.global_downsample), max(1, width // self.cfg.global_downsample))
        directions = _resized(rays_d, size)
        if bool(((rays_d.norm(dim=-1) - 1.0).abs() < UNIT).all()):
            directions = F.normalize(directions, dim=-1)
        if bg_color is not None and bg_color.ndim == 4:
            bg_color = _resized(bg_color, size)
        return _resized(rays_o, size), directions, bg_color

    def _merged(
        self, whole: RenderOutput, patch: RenderOutput, size: tuple[int, int], rows: slice, columns: slice
    ) -> RenderOutput:
        """Pictures of the whole view grown to full size, the patch put over them; `whole` is changed."""
        small, sharp = _picture_shape(whole), _picture_shape(patch)
        for name, value in whole.items():
            if not isinstance(value, Tensor) or value.shape[:3] != small or value.ndim != 4:
                continue
            if name not in patch or patch[name].shape[:3] != sharp:
                continue
            grown = _resized(value.detach() if self.cfg.global_detach else value, size)
            picture = grown.clone()
            picture[:, rows, columns] = patch[name].to(grown)
            whole[name] = picture
        return whole


def _picture_shape(out: RenderOutput) -> torch.Size:
    assert out.opacity is not None
    return out.opacity.shape[:3]


def _cut(bg_color: Tensor | None, rows: slice, columns: slice) -> Tensor | None:
    return bg_color[:, rows, columns] if bg_color is not None and bg_color.ndim == 4 else bg_color


def _resized(image: Float[Tensor, "B H W C"], size: tuple[int, int]) -> Float[Tensor, "B h w C"]:
    """Bilinear between pixel centres."""
    planes = image.permute(0, 3, 1, 2)
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)

"""What every renderer is and gives."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.base import BaseModule
from maquette.core.errors import ConfigError
from maquette.core.output import MappingOutput
from maquette.core.random import StepRandom
from maquette.models.backgrounds.base import BaseBackground
from maquette.models.geometry.base import BaseGeometry
from maquette.models.materials.base import BaseMaterial


@dataclass(kw_only=True, eq=False)
class RenderOutput(MappingOutput):
    """Pictures of B views, and in training the S samples behind them.

    What the geometry gave for the samples (`density`, `features`, `normal`, ...) is in `extras` under its
    own names.
    """

    comp_rgb: Float[Tensor, "B H W C"] | None = None
    """Asset over background."""
    comp_rgb_fg: Float[Tensor, "B H W C"] | None = None
    """Asset over black."""
    comp_rgb_bg: Float[Tensor, "B H W C"] | None = None
    """Background alone."""
    opacity: Float[Tensor, "B H W 1"] | None = None
    depth: Float[Tensor, "B H W 1"] | None = None
    """Weighted sum of distances along the ray; divide by the opacity for a mean."""
    z_variance: Float[Tensor, "B H W 1"] | None = None
    """Variance of distance along the ray; zero where the opacity is at most one half."""
    comp_normal: Float[Tensor, "B H W 3"] | None = None
    """World normals as (n + 1) / 2, times opacity."""
    weights: Float[Tensor, "S 1"] | None = None
    """Contribution of each sample to its ray."""
    t_points: Float[Tensor, "S 1"] | None = None
    """Distance of each sample along its ray."""
    t_intervals: Float[Tensor, "S 1"] | None = None
    """Length that each sample stands for."""
    t_dirs: Float[Tensor, "S 3"] | None = None
    """Direction of each sample's ray."""
    ray_indices: Int[Tensor, "S"] | None = None
    """Ray of each sample, counted over all views."""
    points: Float[Tensor, "S 3"] | None = None
    """World position of each sample."""


class BaseRenderer(BaseModule):
    """Draws a geometry; refers to it, its material and the background, which the system owns."""

    kind: ClassVar[str] = "renderer"

    @dataclass(kw_only=True)
    class Config(BaseModule.Config):
        """Options that every renderer has."""

        radius: float = 1.0
        """Half the width of the cube that is rendered, world units."""

    geometry: BaseGeometry
    material: BaseMaterial
    background: BaseBackground
    bbox: Tensor

    def configure(
        self,
        geometry: BaseGeometry,
        material: BaseMaterial,
        background: BaseBackground,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Keep references (not as submodules: the system owns them) and set the box."""
        self.refer_to(geometry=geometry, material=material, background=background)
        radius = self.cfg.radius
        if radius <= 0:
            raise ConfigError("system.renderer.radius", radius, "a number above 0")
        self.register_buffer("bbox", torch.tensor([[-radius] * 3, [radius] * 3], dtype=torch.float32))

    def refer_to(self, **modules: Any) -> None:
        """Exchange the geometry, material or background that is drawn."""
        for name, module in modules.items():
            object.__setattr__(self, name, module)

    def forward(
        self,
        rays_o: Float[Tensor, "B H W 3"],
        rays_d: Float[Tensor, "B H W 3"],
        light_positions: Float[Tensor, "B 3"],
        bg_color: Tensor | None = None,
        rng: StepRandom | None = None,
        **kwargs: Any,
    ) -> RenderOutput:
        """Pictures along world rays (unit directions).

        Args:
            rays_o: origins.
            rays_d: directions.
            light_positions: a light for each view.
            bg_color: (B, C) or (B, H, W, C), takes the place of the background.
            rng: source of all random draws; without it nothing is random.
            kwargs: the rest of the camera batch, given on to the material in training.
        """
        raise NotImplementedError

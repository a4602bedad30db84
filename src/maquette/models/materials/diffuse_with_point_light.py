"""A matte surface under one point light."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom
from maquette.core.registry import register
from maquette.models.materials.base import BaseMaterial
from maquette.ops.activations import get_activation
from maquette.ops.shading import lambert, light_directions

Shading = Literal["albedo", "textureless", "diffuse"]


@register("diffuse-with-point-light-material")
class DiffuseWithPointLightMaterial(BaseMaterial):
    """Albedo, lit albedo, or lit white plaster, chosen at random for each training step.

    Shading without texture keeps the optimisation from painting shape onto flat geometry (Poole et al. 2022,
    DreamFusion, section 3.1 and appendix A.2).
    """

    requires_normal: bool = True

    @dataclass(kw_only=True)
    class Config(BaseMaterial.Config):
        """Options."""

        ambient_light_color: tuple[float, float, float] = (0.1, 0.1, 0.1)
        """Light from everywhere, RGB."""
        diffuse_light_color: tuple[float, float, float] = (0.9, 0.9, 0.9)
        """Light of the point light, RGB."""
        ambient_only_steps: int = 1000
        """Steps at the start that show the albedo only."""
        diffuse_prob: float = 0.75
        """Probability of shading, after those steps."""
        textureless_prob: float = 0.5
        """Probability that a shaded step is without texture."""
        albedo_activation: str = "sigmoid"
        """Activation of the first three features."""
        soft_shading: bool = False
        """Mix ambient and diffuse light at random in training (ambient = 1 - diffuse)."""
        ambient_only_on_test: bool = False
        """Show the albedo in evaluation."""

        def __post_init__(self) -> None:
            for name in ("diffuse_prob", "textureless_prob"):
                if not 0.0 <= getattr(self, name) <= 1.0:
                    raise ConfigError(f"system.material.{name}", getattr(self, name), "a probability, 0 to 1")

    ambient_light: Tensor
    diffuse_light: Tensor

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Set the lights."""
        ambient, diffuse = self.cfg.ambient_light_color, self.cfg.diffuse_light_color
        self.register_buffer("ambient_light", torch.tensor(list(ambient)), persistent=False)
        self.register_buffer("diffuse_light", torch.tensor(list(diffuse)), persistent=False)
        self.activation = get_activation(self.cfg.albedo_activation, "albedo_activation")
        self.ambient_only = self.cfg.ambient_only_steps > 0

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Leave the albedo phase when it is over."""
        self.ambient_only = global_step < self.cfg.ambient_only_steps

    def forward(
        self,
        features: Float[Tensor, "*N F"],
        viewdirs: Float[Tensor, "*N 3"] | None = None,
        positions: Float[Tensor, "*N 3"] | None = None,
        shading_normal: Float[Tensor, "*N 3"] | None = None,
        light_positions: Float[Tensor, "*N 3"] | None = None,
        rng: StepRandom | None = None,
        ambient_ratio: float | None = None,
        shading: Shading | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "*N 3"]:
        """Colours of points; `shading` and `ambient_ratio` (0: all diffuse) overrule the random choice."""
        albedo = self.activation(features[..., :3])
        shading = shading or self.choose_shading(rng)
        if shading == "albedo":
            # The zero keeps normals in the graph, so that distributed training finds no unused parameter.
            return albedo if shading_normal is None else albedo + shading_normal * 0.0
        light = self._light(positions, shading_normal, light_positions, rng, ambient_ratio)
        return light + albedo * 0.0 if shading == "textureless" else albedo * light

    def choose_shading(self, rng: StepRandom | None) -> Shading:
        """What to show: one choice for all pictures of a step, the same on every rank."""
        if not self.training:
            return "albedo" if self.ambient_only or self.cfg.ambient_only_on_test else "diffuse"
        if self.ambient_only:
            return "albedo"
        if rng is None:
            return "diffuse"
        if rng.shared("material/shading") >= self.cfg.diffuse_prob:
            return "albedo"
        return "textureless" if rng.shared("material/textureless") < self.cfg.textureless_prob else "diffuse"

    def export(self, features: Float[Tensor, "*N F"], **kwargs: Any) -> dict[str, Float[Tensor, "*N 3"]]:
        """The albedo."""
        return {"albedo": self.activation(features[..., :3]).clamp(0.0, 1.0)}

    def _light(
        self,
        positions: Tensor | None,
        normal: Tensor | None,
        light_positions: Tensor | None,
        rng: StepRandom | None,
        ambient_ratio: float | None,
    ) -> Tensor:
        assert positions is not None and normal is not None and light_positions is not None
        if ambient_ratio is None and self.training and self.cfg.soft_shading and rng is not None:
            ambient_ratio = 1.0 - rng.shared("material/soft_shading")
        ambient, diffuse = self.ambient_light, self.diffuse_light
        if ambient_ratio is not None:
            ambient = torch.full_like(ambient, ambient_ratio)
            diffuse = 1.0 - ambient
        return lambert(normal, light_directions(positions, light_positions), diffuse, ambient)

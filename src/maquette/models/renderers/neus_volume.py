"""Signed distances along rays, seen as a thin shell of matter around their surface."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maquette.core.errors import ConfigError
from maquette.core.registry import register
from maquette.kernels.occupancy import RaySamples
from maquette.models.geometry.base import GeometryOutput
from maquette.models.renderers.base import RenderOutput
from maquette.models.renderers.estimators import EARLY_STOP
from maquette.models.renderers.volume import VolumeRenderer, check_field
from maquette.ops.sdf import annealed_cosine, neus_thickness, volsdf_density

VOLSDF_LIMIT = 80.0
"""Largest density that VolSDF's rule may reach."""
LIMITS = (1e-6, 1e6)
"""Of the sharpness."""
SPEED = 10.0
"""The sharpness is the exponential of the parameter times this (Wang et al. 2021, NeuS)."""


class LearnedVariance(nn.Module):
    """The sharpness of a surface, one parameter."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.initial = initial
        self._inv_std = nn.Parameter(torch.tensor(float(initial)))

    @torch.no_grad()
    def init_from(self, generator: torch.Generator) -> None:
        """Begin again."""
        self._inv_std.fill_(self.initial)

    @property
    def inv_std(self) -> Float[Tensor, ""]:
        """One over the width of the shell, 1 / world units."""
        return torch.exp(self._inv_std * SPEED)

    def forward(self) -> Float[Tensor, ""]:
        """The sharpness within its limits."""
        return self.inv_std.clamp(*LIMITS)


@register("neus-volume-renderer")
class NeuSVolumeRenderer(VolumeRenderer):
    """Draws a signed distance by the rule of NeuS (Wang et al. 2021) or of VolSDF (Yariv et al. 2021).

    Gives what `nerf-volume-renderer` gives, and `inv_std`; in training `sdf` and `sdf_grad` of the samples.
    """

    @dataclass(kw_only=True)
    class Config(VolumeRenderer.Config):
        """Options."""

        learned_variance_init: float = 0.3
        """Where the sharpness starts, exp(10 x): 0.3 is a shell of a twentieth of a world unit."""
        cos_anneal_end_steps: int = 0
        """Steps until only surfaces that face the ray are seen; 0: from the start on (NeuS's rule)."""
        use_volsdf: bool = False
        """The rule of VolSDF instead of that of NeuS; it can do without normals."""
        return_sdf_grad: bool = True
        """Give `sdf_grad` and `normal` of the samples in training; NeuS's rule always does."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.cos_anneal_end_steps < 0:
                raise ConfigError(
                    "system.renderer.cos_anneal_end_steps", self.cos_anneal_end_steps, "an integer >= 0"
                )

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Keep the references, make what chooses samples and the sharpness."""
        super().configure(*args, **kwargs)
        check_field(self.geometry, "forward_sdf", "a geometry with a signed distance, such as implicit-sdf")
        if not self.cfg.use_volsdf and getattr(self.geometry.cfg, "normal_type", "any") is None:
            raise ConfigError(
                "system.geometry.normal_type", None, "a type of normal, or system.renderer.use_volsdf: true"
            )
        self.variance = LearnedVariance(self.cfg.learned_variance_init)
        self.cos_anneal = 0.0 if self.cfg.cos_anneal_end_steps else 1.0

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Anneal the cosine; note that the grid is due."""
        super().update_step(epoch, global_step, on_load_weights)
        end = self.cfg.cos_anneal_end_steps
        self.cos_anneal = min(1.0, global_step / end) if end else 1.0

    def absorption(
        self, samples: RaySamples, geometry: GeometryOutput, directions: Float[Tensor, "S 3"]
    ) -> Float[Tensor, "S"]:
        """By VolSDF's density, or by NeuS's opacity of each interval."""
        assert geometry.sdf is not None
        sdf = geometry.sdf.reshape(-1)
        if self.cfg.use_volsdf:
            return volsdf_density(sdf, self.sharpness)
        assert geometry.normal is not None
        delta = samples.t_ends - samples.t_starts
        cosine = annealed_cosine((directions * geometry.normal).sum(dim=-1), self.cos_anneal)
        # The union of coarse and fine edges has intervals of no length, whose thickness is zero.
        return neus_thickness(sdf, cosine, delta, self.sharpness) / delta.clamp(min=1e-9)

    def rough_density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 1"]:
        """As if every surface faced the ray."""
        sdf = self.geometry.forward_sdf(points)
        if self.cfg.use_volsdf:
            return volsdf_density(sdf, self.sharpness)
        return neus_thickness(sdf, -1.0, self.step_size, self.sharpness) / self.step_size

    def forward(self, *args: Any, **kwargs: Any) -> RenderOutput:
        """Pictures along world rays, and the sharpness; see `BaseRenderer.forward`."""
        out = super().forward(*args, **kwargs)
        out["inv_std"] = self.sharpness
        return out

    @property
    def hidden_below(self) -> float:
        """Far less than is seen for NeuS's rule: what the rough density hides, a ray at an angle may see."""
        return EARLY_STOP if self.cfg.use_volsdf else EARLY_STOP**3

    @property
    def sharpness(self) -> Float[Tensor, ""]:
        """The present sharpness, 1 / world units."""
        sharpness: Tensor = self.variance()
        return sharpness.clamp(max=VOLSDF_LIMIT) if self.cfg.use_volsdf else sharpness

    @property
    def needs_normal(self) -> bool:
        """Always for NeuS's rule; for VolSDF's also where `return_sdf_grad` asks for the slope."""
        return not self.cfg.use_volsdf or self.cfg.return_sdf_grad or super().needs_normal

"""A surface with albedo, metalness, roughness and bumps, under light from all directions."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError, MissingFileError
from maquette.core.random import StepRandom
from maquette.core.registry import register
from maquette.io.hdr import read_hdr
from maquette.models.materials.base import BaseMaterial
from maquette.ops.activations import get_activation
from maquette.ops.color import linear_to_srgb, srgb_to_linear
from maquette.ops.environment import irradiance, prefilter, sample_lobes, sample_sphere
from maquette.ops.pbr import brdf_table, lookup_brdf, reflect, split_sum
from maquette.ops.studio import studio
from maquette.ops.tangents import east_of, from_tangent_space, orthogonal_tangent

STUDIO = "maquette/studio"
"""Name of the light that is computed instead of read."""


@dataclass
class Surface:
    """What the features mean at N points."""

    albedo: Float[Tensor, "*N 3"]
    metallic: Float[Tensor, "*N 1"]
    roughness: Float[Tensor, "*N 1"]
    bump: Float[Tensor, "*N 3"] | None
    """Unit normal in the frame of the surface."""


@register("pbr-material")
class PBRMaterial(BaseMaterial):
    """Features are albedo (3), metallic (1), roughness (1) and, with `use_bump`, a tangent-space normal (3).

    Shading is the split-sum approximation (`ops.pbr`) under an equirectangular picture whose centre is the
    front (`ops.environment`). Bumps turn the shading normal in the frame of the surface: the tangent that the
    renderer gives, else the one that points east (`ops.tangents.east_of`).
    """

    requires_normal: bool = True

    @dataclass(kw_only=True)
    class Config(BaseMaterial.Config):
        """Options."""

        material_activation: str = "sigmoid"
        """Activation of all features; it has to give values in [0, 1]."""
        environment_texture: str = STUDIO
        """The light: path of a Radiance picture (.hdr), or maquette/studio, which is computed."""
        environment_scale: float = 2.0
        """Factor for the light."""
        min_metallic: float = 0.0
        """Metalness where its feature is lowest."""
        max_metallic: float = 0.9
        """Metalness where its feature is highest."""
        min_roughness: float = 0.08
        """Roughness where its feature is lowest."""
        max_roughness: float = 0.9
        """Roughness where its feature is highest."""
        use_bump: bool = True
        """Read three more features as a normal in the frame of the surface."""
        linear_light: bool = False
        """Take albedo as a display colour, shade linear light and give display colours, as viewers of the
        exported file do; off, all values are used as they are, as in older recipes."""

        def __post_init__(self) -> None:
            for name in ("metallic", "roughness"):
                low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
                if not 0.0 <= low <= high <= 1.0:
                    raise ConfigError(
                        f"system.material.min_{name}", [low, high], f"0 <= min_{name} <= max_{name} <= 1"
                    )
            if self.environment_scale <= 0:
                raise ConfigError(
                    "system.material.environment_scale", self.environment_scale, "a number above 0"
                )

    diffuse: Tensor
    specular: Tensor
    brdf: Tensor

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Filter the light."""
        self.requires_tangent = self.cfg.use_bump
        self.activation = get_activation(self.cfg.material_activation, "material_activation")
        diffuse, specular = environment_light(self.cfg.environment_texture)
        self.register_buffer("diffuse", diffuse * self.cfg.environment_scale, persistent=False)
        self.register_buffer("specular", specular * self.cfg.environment_scale, persistent=False)
        self.register_buffer("brdf", brdf_table(), persistent=False)

    def forward(
        self,
        features: Float[Tensor, "*N F"],
        viewdirs: Float[Tensor, "*N 3"],
        positions: Float[Tensor, "*N 3"] | None = None,
        shading_normal: Float[Tensor, "*N 3"] | None = None,
        light_positions: Float[Tensor, "*N 3"] | None = None,
        rng: StepRandom | None = None,
        tangent: Float[Tensor, "*N 3"] | Float[Tensor, "*N 4"] | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "*N 3"]:
        """Colours of points under the environment; the point light is not used."""
        if shading_normal is None:
            raise ConfigError("system.geometry.normal_type", None, "a type of normal: light needs it")
        surface = self.surface(features)
        normal = self.bumped(surface, F.normalize(shading_normal, dim=-1), tangent)
        n_dot_v = -(normal * viewdirs).sum(dim=-1, keepdim=True)
        albedo = srgb_to_linear(surface.albedo) if self.cfg.linear_light else surface.albedo
        color = split_sum(
            albedo,
            surface.metallic,
            sample_sphere(self.diffuse, normal),
            sample_lobes(self.specular, reflect(viewdirs, normal), surface.roughness),
            lookup_brdf(self.brdf, n_dot_v, surface.roughness),
        )
        return (linear_to_srgb(color) if self.cfg.linear_light else color).clamp(0.0, 1.0)

    def surface(self, features: Float[Tensor, "*N F"]) -> Surface:
        """Read the features.

        Raises:
            ConfigError: there are too few.
        """
        needed = 8 if self.cfg.use_bump else 5
        if features.shape[-1] < needed:
            raise ConfigError(
                "system.geometry.n_feature_dims", features.shape[-1], f"at least {needed}, for this material"
            )
        value, cfg = self.activation(features), self.cfg
        metallic = cfg.min_metallic + value[..., 3:4] * (cfg.max_metallic - cfg.min_metallic)
        roughness = cfg.min_roughness + value[..., 4:5] * (cfg.max_roughness - cfg.min_roughness)
        bump = None
        if cfg.use_bump:
            straight = value.new_tensor([0.0, 0.0, 1.0])
            bump = F.normalize((2.0 * value[..., 5:8] - 1.0 + straight).clamp(-1.0, 1.0), dim=-1)
        return Surface(value[..., :3], metallic, roughness, bump)

    def bumped(
        self, surface: Surface, normal: Float[Tensor, "*N 3"], tangent: Tensor | None
    ) -> Float[Tensor, "*N 3"]:
        """The normal that light sees, world frame."""
        if surface.bump is None:
            return normal
        if tangent is None:
            return from_tangent_space(surface.bump, normal, east_of(normal))
        level = orthogonal_tangent(tangent[..., :3], normal)
        return from_tangent_space(surface.bump, normal, torch.cat([level, tangent[..., 3:]], dim=-1))

    def export(self, features: Float[Tensor, "*N F"], **kwargs: Any) -> dict[str, Float[Tensor, "*N C"]]:
        """Albedo, metallic, roughness and, with `use_bump`, bump."""
        surface = self.surface(features)
        maps = {
            "albedo": surface.albedo.clamp(0.0, 1.0),
            "metallic": surface.metallic,
            "roughness": surface.roughness,
        }
        return maps if surface.bump is None else {**maps, "bump": (surface.bump + 1.0) * 0.5}


def environment_light(name: str) -> tuple[Float[Tensor, "r c 3"], Float[Tensor, "L R C 3"]]:
    """Filtered light (`irradiance`, `prefilter`) of a picture's path or of `maquette/studio`; kept in memory.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is no Radiance picture.
    """
    if name == STUDIO:
        return _filtered(name, 0)
    path = Path(name)
    if not path.is_file():
        hint = f"set system.material.environment_texture={STUDIO} for the light that is inside the package"
        raise MissingFileError(path, "picture of light (.hdr)", hint)
    return _filtered(name, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _filtered(name: str, changed: int) -> tuple[Tensor, Tensor]:
    picture = studio() if name == STUDIO else read_hdr(name)
    return irradiance(picture), prefilter(picture)

"""What the renderers of fields share: samples along rays, their field, their colours, and the integral."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom
from maquette.kernels.composite import composite
from maquette.kernels.occupancy import RaySamples
from maquette.models.backgrounds.base import BaseBackground
from maquette.models.geometry.base import BaseGeometry, BaseImplicitGeometry, GeometryOutput
from maquette.models.materials.base import BaseMaterial
from maquette.models.renderers.base import BaseRenderer, RenderOutput
from maquette.models.renderers.estimators import (
    EARLY_STOP,
    importance_views,
    march_views,
    positions,
    prune,
)
from maquette.models.renderers.occupancy_grid import THRESHOLD, OccupancyGrid
from maquette.ops.shading import normal_to_color

COUNTS = ("num_samples_per_ray", "num_samples_per_ray_importance", "eval_chunk_size", "grid_resolution")
PER_RAY = ("comp_rgb_fg", "opacity", "depth", "z_variance", "comp_normal")
SAMPLES_PER_CHUNK = 2**19
"""Samples that are looked at together in evaluation, if rays have as many as they can."""
PERTURBATION = 1e-2
"""Standard deviation of the points at which `return_normal_perturb` looks again, world units."""


@dataclass
class RayBatch:
    """Flattened rays of B views, with what belongs to each view."""

    origins: Float[Tensor, "B R 3"]
    directions: Float[Tensor, "B R 3"]
    lights: Float[Tensor, "B 3"]
    rng: StepRandom | None
    material_args: dict[str, Any] = field(default_factory=dict)

    @property
    def flat(self) -> tuple[Tensor, Tensor]:
        """Origins and directions of all rays, (B*R, 3)."""
        return self.origins.reshape(-1, 3), self.directions.reshape(-1, 3)

    def chunks(self, size: int) -> Iterator["RayBatch"]:
        """Parts of at most `size` rays, view by view."""
        for i in range(len(self.origins)):
            for start in range(0, self.origins.shape[1], size):
                rows = slice(start, start + size)
                yield RayBatch(
                    self.origins[i : i + 1, rows],
                    self.directions[i : i + 1, rows],
                    self.lights[i : i + 1],
                    None,
                )


@dataclass
class Shaded:
    """The field and its colours at the samples."""

    points: Float[Tensor, "S 3"]
    geometry: GeometryOutput
    rgb: Float[Tensor, "S C"]


class VolumeRenderer(BaseRenderer):
    """Samples along rays, their field, their colours, and the integral (Mildenhall et al. 2020, NeRF, 4).

    A subclass says what absorbs light: at the samples of a ray (`absorption`), and roughly at a point that
    belongs to no ray, which chooses the samples (`rough_density`).
    """

    estimators: ClassVar[tuple[str, ...]] = ("occgrid", "importance")
    """Ways to choose samples that the class offers."""

    @dataclass(kw_only=True)
    class Config(BaseRenderer.Config):
        """Options."""

        num_samples_per_ray: int = 512
        """Steps through the box along its diagonal (occgrid), or fine samples (importance)."""
        eval_chunk_size: int = 160000
        """Samples whose field is evaluated at once, in evaluation."""
        randomized: bool = True
        """Jitter the samples in training."""
        near_plane: float = 0.0
        """Distance before which nothing is seen."""
        far_plane: float = 1e10
        """Distance behind which nothing is seen."""
        return_comp_normal: bool = False
        """Give `comp_normal` in training too."""
        return_normal_perturb: bool = False
        """Give normals at slightly moved points, for a smoothness loss."""
        estimator: str = "occgrid"
        """How samples are chosen: occgrid, importance, or proposal (nerf-volume-renderer)."""
        grid_prune: bool = True
        """Skip cells without matter (occgrid)."""
        prune_alpha_threshold: bool = True
        """Drop transparent and hidden samples before the expensive part (occgrid)."""
        grid_resolution: int = 32
        """Cells per axis of the occupancy grid."""
        num_samples_per_ray_importance: int = 64
        """Coarse samples (importance)."""

        def __post_init__(self) -> None:
            for name in COUNTS:
                if getattr(self, name) < 1:
                    raise ConfigError(f"system.renderer.{name}", getattr(self, name), "an integer above 0")
            if self.near_plane >= self.far_plane:
                raise ConfigError("system.renderer.far_plane", self.far_plane, "a distance behind near_plane")

    geometry: BaseImplicitGeometry

    def configure(
        self,
        geometry: BaseGeometry,
        material: BaseMaterial,
        background: BaseBackground,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Keep the references and make the occupancy grid."""
        super().configure(geometry, material, background)
        if self.cfg.estimator not in self.estimators:
            raise ConfigError("system.renderer.estimator", self.cfg.estimator, f"one of {self.estimators}")
        if material.requires_normal and getattr(geometry.cfg, "normal_type", "any") is None:
            raise ConfigError(
                "system.geometry.normal_type", None, "a type of normal: the material needs normals"
            )
        self.step_size = 2.0 * math.sqrt(3.0) * self.cfg.radius / self.cfg.num_samples_per_ray
        self.grid: OccupancyGrid | None = None
        if self.cfg.estimator == "occgrid":
            self.grid = OccupancyGrid(self.bbox, self.cfg.grid_resolution)
        self._grid_update: int | None = None
        self._grid_updated: int | None = None

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Note that the grid is due; the next training batch brings the random numbers for it.

        A step of several batches (`accumulate_grad_batches`) updates it with the first of them only.
        """
        if self.grid is None or not (self.cfg.grid_prune and self.training) or on_load_weights:
            return
        due = self.grid.is_due(global_step) and global_step != self._grid_updated
        self._grid_update = global_step if due else None

    def forward(
        self,
        rays_o: Float[Tensor, "B H W 3"],
        rays_d: Float[Tensor, "B H W 3"],
        light_positions: Float[Tensor, "B 3"],
        bg_color: Tensor | None = None,
        rng: StepRandom | None = None,
        **kwargs: Any,
    ) -> RenderOutput:
        """Pictures along world rays; see `BaseRenderer.forward`."""
        views, height, width = rays_o.shape[:3]
        rays = RayBatch(rays_o.reshape(views, -1, 3), rays_d.reshape(views, -1, 3), light_positions, rng)
        if self.training:
            rays.material_args = kwargs
            self._update_grid(rng)
            drawn = self.render_rays(rays)
        else:
            drawn = _joined([self.render_rays(part) for part in rays.chunks(self._rays_per_chunk())])
        out = RenderOutput()
        out.update(_as_pictures(drawn, views, height, width))
        self._put_background(out, rays_d, bg_color, rng)
        return out

    def absorption(
        self, samples: RaySamples, geometry: GeometryOutput, directions: Float[Tensor, "S 3"]
    ) -> Float[Tensor, "S"]:
        """Absorption per world unit at the samples, from the field there."""
        raise NotImplementedError

    def rough_density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 1"]:
        """What samples are chosen by: an estimate of the absorption at points, not less than it is."""
        raise NotImplementedError

    def sample(self, rays: RayBatch) -> RaySamples:
        """Where the rays are looked at."""
        cfg = self.cfg
        rng = self.jitter(rays)
        near, far = cfg.near_plane, cfg.far_plane
        if self.grid is None:
            coarse, fine = cfg.num_samples_per_ray_importance, cfg.num_samples_per_ray
            return importance_views(
                rays.origins, rays.directions, self.bbox, self.rough_density, coarse, fine, near, far, rng
            )
        with torch.no_grad():
            samples = march_views(rays.origins, rays.directions, self.grid, self.step_size, near, far, rng)
        if not cfg.prune_alpha_threshold:
            return samples
        threshold = min(THRESHOLD, float(self.grid.occs.mean())) if cfg.grid_prune else 0.0
        return prune(samples, *rays.flat, self.rough_density, threshold, self.hidden_below)

    def render_rays(self, rays: RayBatch) -> dict[str, Any]:
        """Values of rays, and in training of the samples behind them, by their names in the output."""
        samples = self.sample(rays)
        shaded = self._shade_all(rays, samples)
        return self._composite(rays, samples, shaded)

    def _rays_per_chunk(self) -> int:
        return max(
            1, SAMPLES_PER_CHUNK // (self.cfg.num_samples_per_ray + self.cfg.num_samples_per_ray_importance)
        )

    def jitter(self, rays: RayBatch) -> StepRandom | None:
        """The source of the samples' jitter; none in evaluation."""
        return rays.rng if self.training and self.cfg.randomized else None

    def _shade_all(self, rays: RayBatch, samples: RaySamples) -> Shaded:
        points = positions(samples, *rays.flat)
        if self.training:
            return self._shade(rays, samples.ray_indices, points)
        size = self.cfg.eval_chunk_size
        parts = zip(samples.ray_indices.split(size), points.split(size), strict=True)
        return _joined_shaded([self._shade(rays, rows, part) for rows, part in parts])

    def _shade(self, rays: RayBatch, ray_indices: Tensor, points: Tensor) -> Shaded:
        directions = rays.flat[1][ray_indices]
        geometry = self.geometry(points, output_normal=self.needs_normal)
        arguments = {**rays.material_args, **geometry}
        features = arguments.pop("features", points.new_zeros(len(points), 0))
        rgb = self.material(
            features=features,
            viewdirs=directions,
            positions=points,
            light_positions=rays.lights[ray_indices // rays.origins.shape[1]],
            rng=rays.rng,
            **arguments,
        )
        return Shaded(points, geometry, rgb)

    def _composite(self, rays: RayBatch, samples: RaySamples, shaded: Shaded) -> dict[str, Any]:
        """Integrate colour, depth and normal; the variance of depth is taken around the box's middle."""
        channels = shaded.rgb.shape[-1]
        origins, directions = rays.flat
        middle = -(origins * directions).sum(dim=-1, keepdim=True)
        offset = samples.t_middles[:, None] - middle[samples.ray_indices]
        values = [shaded.rgb, offset, offset.square()]
        if shaded.geometry.normal is not None:
            values.append(shaded.geometry.normal)
        sigma = self.absorption(samples, shaded.geometry, directions[samples.ray_indices])
        summed, opacity, depth, weights = composite(
            sigma, torch.cat(values, dim=-1), samples.t_starts, samples.t_ends, samples.packed, EARLY_STOP
        )
        opacity, depth = opacity.reshape(-1, 1), depth.reshape(-1, 1)
        out = {
            "comp_rgb_fg": summed[:, :channels],
            "opacity": opacity,
            "depth": depth,
            "z_variance": _variance(summed[:, channels], summed[:, channels + 1], opacity),
        }
        if shaded.geometry.normal is not None:
            out["comp_normal"] = _unit(summed[:, channels + 2 :]) * opacity
        if self.training:
            out.update(self._per_sample(rays, samples, shaded, weights))
        return out

    def _per_sample(
        self, rays: RayBatch, samples: RaySamples, shaded: Shaded, weights: Tensor
    ) -> dict[str, Any]:
        out = {
            "weights": weights.reshape(-1, 1),
            "t_points": samples.t_middles[:, None],
            "t_intervals": (samples.t_ends - samples.t_starts)[:, None],
            "t_dirs": rays.flat[1][samples.ray_indices],
            "ray_indices": samples.ray_indices,
            "points": shaded.points,
            **shaded.geometry,
        }
        if self.cfg.return_normal_perturb and rays.rng is not None:
            view = samples.ray_indices // rays.origins.shape[1]
            out["normal_perturb"] = self._perturbed_normal(shaded.points, view, rays.rng)
        return out

    def _perturbed_normal(self, points: Tensor, view: Tensor, rng: StepRandom) -> Tensor | None:
        counts = torch.bincount(view, minlength=rng.batch_size).tolist()
        generators = [torch.Generator().manual_seed(key) for key in rng.keys("renderer/normal_perturb")]
        drawn = [torch.randn(n, 3, generator=one) for n, one in zip(counts, generators, strict=True)]
        return self.geometry(points + torch.cat(drawn).to(points) * PERTURBATION, output_normal=True).normal

    def _put_background(
        self, out: RenderOutput, rays_d: Tensor, bg_color: Tensor | None, rng: StepRandom | None
    ) -> None:
        assert out.comp_rgb_fg is not None and out.opacity is not None
        if bg_color is None:
            bg_color = self.background(dirs=rays_d, rng=rng)
        elif bg_color.ndim == 2:
            bg_color = bg_color[:, None, None, :].expand_as(out.comp_rgb_fg)
        out.comp_rgb_bg = bg_color
        out.comp_rgb = out.comp_rgb_fg + bg_color * (1.0 - out.opacity)

    def _update_grid(self, rng: StepRandom | None) -> None:
        if self.grid is None or self._grid_update is None or rng is None:
            return
        step = self._grid_updated = self._grid_update
        self._grid_update = None
        generator = _generator(rng, "renderer/grid")
        self.grid.update(step, lambda x: self.rough_density(x) * self.step_size, generator)

    @property
    def hidden_below(self) -> float:
        """Samples are dropped unseen where by `rough_density` less than this part of the light is left."""
        return EARLY_STOP

    @property
    def needs_normal(self) -> bool:
        """Whether the geometry has to give normals."""
        return self.material.requires_normal or self.cfg.return_comp_normal or not self.training


def check_field(geometry: BaseGeometry, method: str, suitable: str) -> None:
    """Refuse a geometry that does not have what a renderer integrates.

    Raises:
        ConfigError: `method` is that of the base class, or absent.
    """
    if getattr(type(geometry), method, None) in (None, getattr(BaseImplicitGeometry, method, None)):
        raise ConfigError("system.geometry_type", type(geometry).__name__, suitable)


def _generator(rng: StepRandom, name: str) -> torch.Generator:
    """A generator that is the same on every rank."""
    return torch.Generator().manual_seed(int(rng.shared(name) * 2**24))


def _variance(mean: Tensor, square: Tensor, opacity: Tensor) -> Float[Tensor, "R 1"]:
    """Variance of depth with normalised weights; zero on rays that are at most half opaque."""
    solid = opacity > 0.5
    total = torch.where(solid, opacity, torch.ones_like(opacity))
    variance = square[:, None] / total - (mean[:, None] / total).square()
    return torch.where(solid, variance.clamp(min=0.0), torch.zeros_like(variance))


def _unit(normal: Tensor) -> Tensor:
    return normal_to_color(torch.nn.functional.normalize(normal, dim=-1))


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _joined_shaded(parts: list[Shaded]) -> Shaded:
    geometry = GeometryOutput()
    geometry.update({name: torch.cat([part.geometry[name] for part in parts]) for name in parts[0].geometry})
    points, rgb = torch.cat([part.points for part in parts]), torch.cat([part.rgb for part in parts])
    return Shaded(points, geometry, rgb)


def _as_pictures(drawn: dict[str, Any], views: int, height: int, width: int) -> dict[str, Any]:
    """Values of rays in the shape of pictures, everything else as it is."""
    return {
        name: value.reshape(views, height, width, -1) if name in PER_RAY else value
        for name, value in drawn.items()
    }

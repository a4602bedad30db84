"""3D Gaussian splatting (Kerbl et al. 2023) as a geometry: a cloud of Gaussians that is optimised."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom
from maquette.core.registry import register
from maquette.core.schedule import Schedule
from maquette.models.geometry.base import BaseGeometry, BaseImplicitGeometry, GeometryOutput
from maquette.models.geometry.density_field import DensityField, Examples, examples_near
from maquette.models.geometry.gaussian_densify import Densification
from maquette.models.geometry.gaussian_field import GaussianField
from maquette.models.geometry.gaussian_init import ball, fitted, from_file, from_geometry
from maquette.models.geometry.gaussian_mcmc import MarkovChain
from maquette.models.geometry.gaussian_rows import NORMALS, GaussianRows, Rows, activated
from maquette.ops.gaussians import Gaussians

STRATEGIES = {"default": Densification, "mcmc": MarkovChain}
RATES = {
    "_xyz": "position_lr",
    "_features_dc": "feature_lr",
    "_features_rest": "feature_lr",
    "_scaling": "scaling_lr",
    "_rotation": "rotation_lr",
    "_opacity": "opacity_lr",
    NORMALS: "normal_lr",
}
"""The option that holds the learning rate of each parameter."""
REST_RATE = 1 / 20
"""Colours that depend on the direction learn slower by this."""
INTERVALS = ("densification_interval", "prune_interval", "opacity_reset_interval", "init_num_pts", "max_num")
COLOR_MARGIN = 0.002
"""Colours are kept so far from 0 and 1 when they become logits."""


@register("gaussian-splatting")
class GaussianSplatting(GaussianRows, DensityField):
    """N Gaussians with position, rotation, scales, opacity and colour; N changes while they are optimised.

    They begin as a ball, or as what `geometry_convert_from` names. Their system tells them what the screen
    showed (`observe`) and lets them change after each step (`evolve`). As a field they have the density of
    bodies of Gaussian shape, from which the surface of the exported mesh is taken.
    """

    appearance = ("_features_dc", "_features_rest")

    @dataclass(kw_only=True)
    class Config(BaseImplicitGeometry.Config):
        """Options; those that take a schedule are read with the logarithm interpolated for learning rates."""

        max_num: int = 500_000
        """Most Gaussians that there may be."""
        sh_degree: int = 0
        """Degree of the spherical harmonics that the colour has, 0 to 3; 0 is the same from all sides."""
        position_lr: Any = 0.001
        """Learning rate of positions."""
        scale_lr: Any = 0.003
        """Read from older recipes and ignored, as there: `scaling_lr` counts."""
        feature_lr: Any = 0.01
        """Learning rate of colours; a twentieth of it for those that depend on the direction."""
        opacity_lr: Any = 0.05
        """Learning rate of opacities (logits)."""
        scaling_lr: Any = 0.005
        """Learning rate of scales (logarithms)."""
        rotation_lr: Any = 0.005
        """Learning rate of rotations."""
        pred_normal: bool = False
        """Learn a normal for each Gaussian."""
        normal_lr: Any = 0.001
        """Learning rate of normals."""
        densification_interval: int = 50
        """Steps between two densifications."""
        prune_interval: int = 50
        """Steps between two prunings."""
        opacity_reset_interval: int = 100_000
        """Prunings at a multiple of this step also take a tenth of every opacity."""
        densify_from_iter: int = 100
        """Densify after this step."""
        prune_from_iter: int = 100
        """Prune after this step."""
        densify_until_iter: int = 2000
        """Densify before this step."""
        prune_until_iter: int = 2000
        """Prune before this step."""
        densify_grad_threshold: Any = 0.01
        """Mean length of the gradient on the screen, per unit of NDC, from which a Gaussian is densified."""
        min_opac_prune: Any = 0.005
        """Opacity below which a Gaussian is removed (default), or relocated (mcmc)."""
        split_thresh: Any = 0.02
        """Length of the vector of scales above which a Gaussian is split and not cloned, world units."""
        radii2d_thresh: Any = 1000
        """Radius on the screen above which a Gaussian is removed, pixels."""
        sphere: bool = False
        """Keep the Gaussians round."""
        prune_big_points: bool = False
        """Also remove those whose radius on the screen is more than three times the mean."""
        prune_outside: bool = False
        """Also remove those whose middle has left the cube of half-width `radius`."""
        color_clip: Any = 2.0
        """Coefficients of degree 0 are kept within plus and minus this; 0 keeps them free."""
        geometry_convert_from: str = ""
        """Begin with a file: splats, points or a mesh (.ply), another mesh, or the .ckpt of such a run."""
        load_ply_only_vertex: bool = False
        """Take nothing but positions and colours from a .ply."""
        init_num_pts: int = 100
        """Gaussians of the initial ball, or on the surface of what it begins with."""
        pc_init_radius: float = 0.8
        """Radius of the initial ball, world units."""
        opacity_init: float = 0.1
        """Opacity at the beginning."""
        shap_e_guidance_config: dict[str, Any] = field(default_factory=dict)
        """Read from older recipes and ignored: no such model is here."""
        n_feature_dims: int = 3
        """Features that the field gives: the logits of the colour, always three."""
        strategy: str = "default"
        """How the number changes: default (clone, split, prune), or mcmc (relocate, grow, noise)."""
        mcmc_noise_lr: float = 5e5
        """Noise of the strategy mcmc, as a multiple of the learning rate of positions."""
        mcmc_growth: float = 0.05
        """Part by which the strategy mcmc grows each time, until there are `max_num`."""
        isosurface_method: str = "mc"
        """How the surface is taken from the density."""
        isosurface_threshold: Any = "auto"
        """Density at the surface, per world unit; "auto" is the surface that pictures show."""
        isosurface_blur: float = 1.0
        """Standard deviation by which the field is blurred, in cells of the grid of the surface."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.isosurface_deformable_grid:
                _refuse("isosurface_deformable_grid", True, "false: Gaussians learn no offsets of a grid")
            if self.strategy not in STRATEGIES:
                _refuse("strategy", self.strategy, f"one of: {', '.join(STRATEGIES)}")
            if self.n_feature_dims != 3:
                _refuse("n_feature_dims", self.n_feature_dims, "3")
            if not 0 <= self.sh_degree <= 3:
                _refuse("sh_degree", self.sh_degree, "0, 1, 2 or 3")
            if not 0.0 < self.opacity_init < 1.0:
                _refuse("opacity_init", self.opacity_init, "a number between 0 and 1")
            if self.pc_init_radius <= 0.0:
                _refuse("pc_init_radius", self.pc_init_radius, "a number above 0")
            for name in INTERVALS:
                if getattr(self, name) < 1:
                    _refuse(name, getattr(self, name), "an integer >= 1")
            for name in ("mcmc_noise_lr", "mcmc_growth", "isosurface_blur"):
                if getattr(self, name) < 0.0:
                    _refuse(name, getattr(self, name), "a number >= 0")
            for name in set(RATES.values()):
                Schedule.parse(getattr(self, name), "exp", f"system.geometry.{name}")

    cfg: Config

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Make the first Gaussians."""
        super().configure()
        cfg = self.cfg
        self.given = bool(cfg.geometry_convert_from)
        start = from_file(cfg.geometry_convert_from, cfg) if self.given else self._ball(None)
        self.make_rows(start, cfg.pred_normal)
        self.strategy = STRATEGIES[cfg.strategy](cfg)
        self.color_clip = Schedule.parse(cfg.color_clip, key="system.geometry.color_clip")
        self.rates = {
            name: Schedule.parse(getattr(cfg, option), "exp", f"system.geometry.{option}")
            for name, option in RATES.items()
            if hasattr(self, name)
        }
        self.clip = self.color_clip.at(0)
        self._field: tuple[Any, GaussianField] | None = None

    def init_from(self, generator: torch.Generator) -> None:
        """Draw the initial ball; Gaussians that came from elsewhere stay."""
        if not self.given:
            self.set_rows(self._ball(generator))

    @classmethod
    @torch.no_grad()
    def create_from(
        cls, other: BaseGeometry, cfg: Any = None, copy_net: bool = True, **kwargs: Any
    ) -> "GaussianSplatting":
        """A cloud that starts as a copy of another one, or on the surface of any geometry that has one.

        Args:
            other: the geometry to convert, on its device.
            cfg: config of the new one; `init_num_pts` Gaussians go onto a surface.
            copy_net: not needed: there are no networks.
            kwargs: `material`, whose albedo the colours become.
        """
        instance = cls(cfg)
        is_cloud = isinstance(other, GaussianSplatting)
        start = other.gaussians() if is_cloud else from_geometry(other, instance.cfg, kwargs.get("material"))
        instance.to(start.means.device).set_rows(fitted(start, instance.cfg))
        instance.given = True
        return instance

    def gaussians(self) -> Gaussians:
        """The Gaussians as they act, with gradients to the parameters."""
        found = activated(self.row_parameters).replace(scales=self.scales)
        if self.cfg.sphere:
            own = self._scaling[:, : 2 if self.flat else 3].mean(dim=-1, keepdim=True).exp()
            found = found.replace(scales=torch.cat([own, own, found.scales[:, 2:] if self.flat else own], 1))
        if self.clip > 0.0:
            first = found.sh[:, :1].clamp(-self.clip, self.clip)
            found = found.replace(sh=torch.cat([first, found.sh[:, 1:]], dim=1))
        return found

    def predicted_normals(self) -> Float[Tensor, "N 3"] | None:
        """The learned unit normals, with `pred_normal`."""
        return torch.nn.functional.normalize(self._normal, dim=-1) if self.cfg.pred_normal else None

    # optimisation -------------------------------------------------------------------------------------------

    def learning_rates(self, epoch: int, global_step: int) -> dict[str, float]:
        """The rate of each parameter at a step, by name."""
        rates = {name: schedule.at(global_step, epoch) for name, schedule in self.rates.items()}
        rates["_features_rest"] *= REST_RATE
        return rates

    def evolve(self, epoch: int, global_step: int, rng: StepRandom) -> Rows | None:
        """Densify, prune or relocate if that is due after this step; the change of the rows, if any.

        Args:
            epoch: of the step.
            global_step: optimiser steps done before the one that has just been made.
            rng: draws of the step, with one row.
        """
        return self.strategy.step(self, epoch, global_step, rng)

    def observes(self, global_step: int) -> bool:
        """Whether `observe` should be told what this step shows."""
        return self.strategy.observes(global_step)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Set what changes with the step."""
        self.clip = self.color_clip.at(global_step, epoch)

    # the field ----------------------------------------------------------------------------------------------

    def forward(self, points: Float[Tensor, "*N 3"], output_normal: bool = False) -> GeometryOutput:
        """Density, features and, if asked, normals at world points, without gradients."""
        return self.evaluate(points, output_normal)

    def evaluate(self, points: Float[Tensor, "*N 3"], output_normal: bool) -> GeometryOutput:
        """Density, features and, if asked, normals at world points, without gradients.

        All blurred by `isosurface_blur`, as a mesh of that resolution can show them. Features are the logits
        of the colours, so that the sigmoid of the usual materials shows these.
        """
        with torch.no_grad():
            found = self.as_field().at(points.reshape(-1, 3), output_normal)
        shape = points.shape[:-1]
        normal = None if found.normals is None else found.normals.reshape(*shape, 3)
        return GeometryOutput(
            density=found.density.reshape(*shape, 1),
            features=torch.logit(found.colors, eps=COLOR_MARGIN).reshape(*shape, 3),
            normal=normal,
            shading_normal=normal,
        )

    def forward_density(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 1"]:
        """Density at world points, per world unit."""
        return self.as_field().density_at(points.reshape(-1, 3)).reshape(*points.shape[:-1], 1)

    def export(self, points: Float[Tensor, "*N 3"], **kwargs: Any) -> dict[str, Tensor]:
        """Logits of the colours of the Gaussians around surface points."""
        return {"features": self(points)["features"]}

    @torch.no_grad()
    def examples(self, n: int, radius: float) -> Examples:
        """As of any density; most of the points are near Gaussians, which are small."""
        return examples_near(self, self.gaussians().means, n, radius)

    @torch.no_grad()
    def as_field(self) -> GaussianField:
        """The present Gaussians as a field, blurred by `isosurface_blur`; made once for the same values."""
        parameters = self.row_parameters.values()
        state = (self.clip, self.flat, *((one.data_ptr(), one._version, one.shape) for one in parameters))
        if self._field is None or self._field[0] != state:
            cell = 2.0 * self.cfg.radius / (self.cfg.isosurface_resolution - 1)
            self._field = (state, GaussianField(self.gaussians(), self.cfg.isosurface_blur * cell))
        return self._field[1]

    def _ball(self, generator: torch.Generator | None) -> Gaussians:
        cfg = self.cfg
        n = min(cfg.init_num_pts, cfg.max_num)
        return ball(n, cfg.pc_init_radius, cfg.opacity_init, cfg.sh_degree, generator)


def _refuse(name: str, got: Any, expected: str) -> None:
    raise ConfigError(f"system.geometry.{name}", got, expected)

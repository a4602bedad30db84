"""A density field in a voxel grid, without any network."""

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from maquette.core.errors import ConfigError
from maquette.core.registry import register
from maquette.models.geometry.base import POINTS_PER_CHUNK, BaseGeometry, GeometryOutput, is_number
from maquette.models.geometry.density_field import (
    DensityField,
    blob_magic3d,
    inverse_activation,
)
from maquette.models.geometry.slopes import NORMAL_TYPES
from maquette.models.geometry.solid import Solid, as_density
from maquette.ops.activations import get_activation

log = logging.getLogger(__name__)

NORMAL_EPS = 1e-3
"""Step of finite differences, world units."""


@register("volume-grid")
class VolumeGrid(DensityField):
    """Values at the centres of voxels, interpolated linearly.

    The first channel is the density before its activation, the others are the features. The axes of
    `grid_size` are z, y, x.
    """

    @dataclass(kw_only=True)
    class Config(DensityField.Config):
        """Options."""

        isosurface_threshold: Any = "auto"
        """Density at the surface: a number or "auto"."""
        grid_size: tuple[int, int, int] = field(default_factory=lambda: (100, 100, 100))
        """Voxels along z, y and x."""
        n_feature_dims: int = 3
        """Number of features; 0 for none."""
        density_activation: str | None = "softplus"
        """Activation that gives the density."""
        density_bias: Any = "blob"
        """Added before the activation: a number, or blob."""
        density_blob_scale: float = 5.0
        """Height of the blob."""
        density_blob_std: float = 0.5
        """Radius of the blob, world units."""
        normal_type: str | None = "finite_difference"
        """analytic, finite_difference (3 evaluations), finite_difference_laplacian (6), pred, or null."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.isosurface_deformable_grid:
                raise ConfigError(
                    "system.geometry.isosurface_deformable_grid", True, "false: a volume learns no offsets"
                )
            if min(self.grid_size) < 2:
                raise ConfigError("system.geometry.grid_size", self.grid_size, "three integers >= 2")
            if self.n_feature_dims < 0:
                raise ConfigError("system.geometry.n_feature_dims", self.n_feature_dims, "an integer >= 0")
            if not is_number(self.density_bias) and self.density_bias != "blob":
                raise ConfigError("system.geometry.density_bias", self.density_bias, "a number, or blob")
            if self.density_blob_std <= 0:
                raise ConfigError(
                    "system.geometry.density_blob_std", self.density_blob_std, "a number above 0"
                )
            if self.normal_type is not None and self.normal_type not in NORMAL_TYPES:
                raise ConfigError(
                    "system.geometry.normal_type", self.normal_type, f"null or one of {NORMAL_TYPES}"
                )

    density_scale: Tensor

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Make the grid; the density's logarithmic scale is learned unless the field starts as a blob."""
        super().configure()
        size = tuple(self.cfg.grid_size)
        self.grid = nn.Parameter(torch.zeros(1, self.cfg.n_feature_dims + 1, *size))
        if self.cfg.density_bias == "blob":
            self.register_buffer("density_scale", torch.tensor(0.0))
        else:
            self.density_scale = nn.Parameter(torch.tensor(0.0))
        if self.cfg.normal_type == "pred":
            self.normal_grid = nn.Parameter(torch.zeros(1, 3, *size))
        self.density_activation = get_activation(self.cfg.density_activation, "density_activation")

    def evaluate(self, points: Float[Tensor, "*N 3"], output_normal: bool) -> GeometryOutput:
        """Density, features and, if asked, normals."""
        values = self._values(self.grid, points)
        density = self._density(points, values)
        out = GeometryOutput(density=density)
        if self.cfg.n_feature_dims > 0:
            out.features = values[..., 1:]
        if output_normal and self.cfg.normal_type is not None:
            out.normal = out.shading_normal = self._normal(points, density)
        return out

    def forward_density(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 1"]:
        """Density at world points, per world unit."""
        return self._density(points, self._values(self.grid[:, :1], points))

    def export(self, points: Float[Tensor, "*N 3"], **kwargs: Any) -> dict[str, Tensor]:
        """Features of surface points."""
        if self.cfg.n_feature_dims == 0:
            return {}
        return {"features": self._values(self.grid[:, 1:], points)}

    @classmethod
    @torch.no_grad()
    def create_from(
        cls, other: BaseGeometry, cfg: Any = None, copy_net: bool = True, **kwargs: Any
    ) -> "VolumeGrid":
        """A grid with the values of another geometry at its voxels.

        The density is that of a volume or of Gaussians, or of the `Solid` inside the closed mesh of anything
        else. Features are taken along with `copy_net`, where their number is the same; normals where this
        grid predicts them and the other geometry has some.

        Raises:
            ConfigError: `other` has no density and cannot become a mesh.
            UserError: its mesh is not closed.
        """
        source = as_density(other, VolumeGrid)
        instance = VolumeGrid(cfg).to(source.bbox.device)
        centers = instance.centers()
        density, features = _sampled(source, centers)
        raw = inverse_activation(instance.density_activation, density) - instance._bias(centers)
        channels = [raw / instance.density_scale.exp()]
        if copy_net and instance.cfg.n_feature_dims == source.n_features > 0:
            channels.append(features)
        values = torch.cat(channels, dim=-1).T
        instance.grid[0, : len(values)] = values.reshape(len(values), *instance.cfg.grid_size)
        if instance.cfg.normal_type == "pred":
            instance._take_normals(source, centers)
        return instance

    def centers(self) -> Float[Tensor, "N 3"]:
        """World positions of the voxels' centres, in the order of the grid's memory."""
        axes = [(torch.arange(n, device=self.bbox.device) + 0.5) / n for n in self.cfg.grid_size]
        z, y, x = torch.meshgrid(*axes, indexing="ij")
        unit = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
        return self.bbox[0] + unit * (self.bbox[1] - self.bbox[0])

    def _take_normals(self, source: DensityField | Solid, centers: Tensor) -> None:
        """Predict the normals that another field shows, if it shows any."""
        if isinstance(source, Solid) or getattr(source.cfg, "normal_type", "always") is None:
            log.warning("the predicted normals of the grid begin untrained: the old geometry shows none")
            return
        normals = [source(part, output_normal=True)["normal"] for part in centers.split(POINTS_PER_CHUNK)]
        self.normal_grid[0] = torch.cat(normals).T.reshape(3, *self.cfg.grid_size)

    def _values(self, grid: Tensor, points: Tensor) -> Tensor:
        """The channels of `grid` at world points; beyond the outermost centres, those of the border."""
        unit = self.to_unit_cube(points).reshape(-1, 3)
        if unit.requires_grad:
            values = trilinear(grid[0], unit)
        else:
            where = unit.reshape(1, 1, 1, -1, 3) * 2.0 - 1.0
            values = F.grid_sample(grid, where, padding_mode="border", align_corners=False)
            values = values.reshape(grid.shape[1], -1).T
        return values.reshape(*points.shape[:-1], grid.shape[1])

    def _density(self, points: Tensor, values: Tensor) -> Tensor:
        return self.density_activation(values[..., :1] * self.density_scale.exp() + self._bias(points))

    def _bias(self, points: Tensor) -> Tensor | float:
        if self.cfg.density_bias == "blob":
            return blob_magic3d(points, self.cfg.density_blob_scale, self.cfg.density_blob_std)
        return float(self.cfg.density_bias)

    def _normal(self, points: Tensor, density: Tensor) -> Tensor:
        if self.cfg.normal_type == "pred":
            return F.normalize(self._values(self.normal_grid, points), dim=-1)
        return self.slope_normal(points, density, NORMAL_EPS)


def trilinear(grid: Float[Tensor, "C D H W"], unit: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
    """Values between the centres of voxels at positions in [0, 1]^3 (x along the last axis).

    What `grid_sample` gives (border padding, corners not aligned), but differentiable twice.
    """
    side = torch.tensor(grid.shape[:0:-1], device=unit.device)
    position = torch.minimum((unit * side - 0.5).clamp(min=0.0), (side - 1).to(unit))
    low = torch.minimum(position.detach().floor().long(), side - 2)
    fraction = position - low
    rows = grid.permute(1, 2, 3, 0).reshape(-1, len(grid))
    total = unit.new_zeros(len(unit), len(grid))
    for corner in range(8):
        offset = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2], device=unit.device)
        x, y, z = (low + offset).unbind(-1)
        weight = torch.where(offset > 0, fraction, 1.0 - fraction).prod(dim=-1, keepdim=True)
        total = total + weight * rows[(z * side[1] + y) * side[0] + x]
    return total


def _sampled(other: DensityField | Solid, points: Tensor) -> tuple[Tensor, Tensor]:
    """Density and features (none: of width 0) of a field, part by part."""
    evaluate = partial(other.evaluate, output_normal=False)
    parts = [evaluate(part) for part in points.split(POINTS_PER_CHUNK)]
    density = torch.cat([part["density"] for part in parts])
    features = [part.get("features", part["density"][:, :0]) for part in parts]
    return density, torch.cat(features)

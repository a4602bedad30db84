"""What fields of density share: their level, their normals, and the blob they may start from."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import RunFailed
from maquette.core.random import named_generator
from maquette.models.geometry.base import POINTS_PER_CHUNK, BaseImplicitGeometry, GeometryOutput
from maquette.models.geometry.field_fit import points_in_box, points_near
from maquette.models.geometry.slopes import analytic_slope, difference_slope, with_point_gradient
from maquette.ops.volume import visible_level

log = logging.getLogger(__name__)

Examples = Callable[[torch.Generator], tuple[Tensor, GeometryOutput]]
"""Draws points (N, 3), and gives the field there."""
FAINT = 0.05
"""Below this largest opacity along any axis a volume counts as empty."""
POOL = 2**19
"""Points of `examples_near` at which the field is known."""
NEAR_SHARE = 3 / 4
"""Part of these points that is near the anchors."""


class DensityField(BaseImplicitGeometry):
    """A density per world unit; a subclass gives it with `forward_density` and `evaluate`."""

    @property
    def n_features(self) -> int:
        """Number of features; 0 for none."""
        return int(self.cfg.n_feature_dims)

    def evaluate(self, points: Float[Tensor, "*N 3"], output_normal: bool) -> GeometryOutput:
        """Density, features and, if asked, normals."""
        raise NotImplementedError

    def forward(self, points: Float[Tensor, "*N 3"], output_normal: bool = False) -> GeometryOutput:
        """Density, features and, if asked, normals at world points.

        Normals are unit vectors against the gradient of the density. In evaluation they carry no gradient.
        """
        if output_normal and self.cfg.normal_type == "analytic":
            return with_point_gradient(partial(self.evaluate, output_normal=True), points)
        return self.evaluate(points, output_normal)

    def forward_field(self, points: Float[Tensor, "*N 3"]) -> tuple[Tensor, Tensor | None]:
        """The density; grid nodes do not move."""
        return self.forward_density(points), None

    def forward_level(self, field: Float[Tensor, "*N"], threshold: float) -> Float[Tensor, "*N"]:
        """Threshold minus density."""
        return threshold - field

    def auto_threshold(self, field: Float[Tensor, "X Y Z"], box: Float[Tensor, "2 3"]) -> float:
        """The density at the surface that a rendering shows (`ops.volume.visible_level`)."""
        if bool(field.isnan().any()):
            raise RunFailed(
                "There is no isosurface: the density has values that are not numbers.",
                [f"share of them: {float(field.isnan().float().mean()):.1%}"],
                "the run collapsed: train again with a lower learning rate, or trainer.precision=32",
            )
        cell = float((box[1] - box[0]).max()) / (len(field) - 1)
        level, opacity = visible_level(field, cell)
        if not opacity >= FAINT:
            raise RunFailed(
                "The asset is empty: nothing in it is visible.",
                [
                    f"largest opacity along an axis: {opacity:.3g}",
                    f"largest density: {float(field.max()):.3g}",
                ],
                "train longer, or lower system.loss.lambda_sparsity",
            )
        if opacity < 0.5:
            log.warning("the asset is faint (largest opacity %.2f): its mesh is a guess", opacity)
        return level

    def examples(self, n: int, radius: float) -> Examples:
        """Draws of n points in a cube of half-width `radius`, for fitting another field to this one."""

        def draw(generator: torch.Generator) -> tuple[Tensor, GeometryOutput]:
            points = points_in_box(n, radius, generator).to(self.bbox.device)
            with torch.no_grad():
                return points, self.evaluate(points, False)

        return draw

    def slope_normal(
        self, points: Float[Tensor, "*N 3"], density: Float[Tensor, "*N 1"], eps: float
    ) -> Float[Tensor, "*N 3"]:
        """Normals against the gradient of the density, by differences of step `eps` or analytic."""
        kind = self.cfg.normal_type
        if kind == "analytic":
            return -F.normalize(analytic_slope(density, points), dim=-1)
        central = kind == "finite_difference_laplacian"
        slope = difference_slope(self.forward_density, points, density, eps, self.cfg.radius, central)
        return -F.normalize(slope, dim=-1)


@torch.no_grad()
def examples_near(field: Any, anchors: Float[Tensor, "P 3"], n: int, radius: float) -> Examples:
    """Examples of a field that is slow, or thin: from a pool of points, most of them near the anchors.

    Args:
        field: has `evaluate`, without gradients.
        anchors: where there is something to see, world frame.
        n: points of a draw.
        radius: half the width of the cube that they are in.
    """
    drawn = named_generator(0, "field examples")
    near, _ = points_near(anchors, int(NEAR_SHARE * POOL), radius, drawn)
    points = torch.cat([near, points_in_box(POOL - len(near), radius, drawn).to(near)])
    parts = [field.evaluate(part, False) for part in points.split(POINTS_PER_CHUNK)]
    known = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def draw(generator: torch.Generator) -> tuple[Tensor, GeometryOutput]:
        rows = torch.randint(POOL, (n,), generator=generator).to(points.device)
        return points[rows], GeometryOutput(**{name: values[rows] for name, values in known.items()})

    return draw


def blob_magic3d(points: Float[Tensor, "*N 3"], scale: float, std: float) -> Float[Tensor, "*N 1"]:
    """A cone of density: `scale` at the origin, zero at the distance `std` (Lin et al. 2023, Magic3D)."""
    length = (points.square().sum(dim=-1, keepdim=True) + 1e-12).sqrt()
    return scale * (1.0 - length / std)


def blob_dreamfusion(points: Float[Tensor, "*N 3"], scale: float, std: float) -> Float[Tensor, "*N 1"]:
    """A Gaussian of density (Poole et al. 2022, DreamFusion)."""
    return scale * torch.exp(-0.5 * points.square().sum(dim=-1, keepdim=True) / std**2)


def inverse_activation(
    activation: Any, density: Float[Tensor, "*N"], low: float = -50.0, high: float = 1e4
) -> Float[Tensor, "*N"]:
    """The numbers that a growing activation turns into `density`, by bisection.

    Where it never gets that low or high, the end of the range that comes nearest.
    """
    below, above = torch.full_like(density, low), torch.full_like(density, high)
    for _ in range(60):
        middle = 0.5 * (below + above)
        less = activation(middle) < density
        below, above = torch.where(less, middle, below), torch.where(less, above, middle)
    return 0.5 * (below + above)

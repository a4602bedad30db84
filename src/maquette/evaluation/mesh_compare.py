"""How far two shapes are apart: chamfer distance, F-score, volumes, boxes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from maquette.core.errors import ConfigError, UserError
from maquette.kernels.nearest import chamfer, f_score
from maquette.ops.mesh import Mesh, bounding_box, volume
from maquette.ops.point_cloud import PointCloud, sample_surface

TOLERANCE = 0.01
"""Share of the diagonal within which a point counts as met."""

Box = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two shapes, side by side; lengths in world units."""

    points: int
    """Points drawn from each surface."""
    chamfer: float
    """Mean distance of the points of one to the points of the other, mean of both directions."""
    chamfer_percent: float
    """The same, in percent of the first one's diagonal."""
    f_score: float
    """Harmonic mean of the shares of points of one that are within `tolerance` of the other."""
    tolerance: float
    spacing: float
    """About how far the points of the first surface are apart: smaller distances are noise."""
    volumes: tuple[float | None, float | None]
    """None for a cloud of points."""
    boxes: tuple[Box, Box]
    """Lower and upper corner of each."""
    diagonal: float
    """Of the first one's box."""

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for a JSON file or a table."""
        return asdict(self)


def compare_shapes(
    a: Mesh | PointCloud,
    b: Mesh | PointCloud,
    n: int = 100_000,
    seed: int = 0,
    tolerance: float | None = None,
) -> Comparison:
    """Compare two meshes or clouds in the same frame; the same shape twice has distance zero.

    Args:
        a: the reference.
        b: the other.
        n: points drawn from each surface (of a cloud, every k-th point, at most as many).
        seed: of the draws.
        tolerance: of the F-score, world units; None is 1 % of the diagonal of `a`.

    Raises:
        ConfigError: `n` or `tolerance` is not positive.
        UserError: one of them is empty.
    """
    if n < 1:
        raise ConfigError("points", n, "an integer >= 1")
    first, second = _points(a, n, seed), _points(b, n, seed)
    boxes = _box(a), _box(b)
    diagonal = float(torch.tensor(boxes[0][1]).sub(torch.tensor(boxes[0][0])).norm())
    limit = TOLERANCE * diagonal if tolerance is None else tolerance
    if tolerance is not None and not tolerance > 0:
        raise ConfigError("tolerance", tolerance, "a length above 0")
    mean = float(chamfer(first, second))
    return Comparison(
        points=n,
        chamfer=mean,
        chamfer_percent=100.0 * mean / diagonal if diagonal > 0 else 0.0,
        f_score=f_score(first, second, limit),
        tolerance=limit,
        spacing=diagonal / max(1.0, len(first) ** 0.5),
        volumes=(_volume(a), _volume(b)),
        boxes=boxes,
        diagonal=diagonal,
    )


def _points(shape: Mesh | PointCloud, n: int, seed: int) -> torch.Tensor:
    if isinstance(shape, PointCloud):
        if shape.n_points == 0:
            raise UserError("A cloud without points cannot be compared.")
        return shape.points[:: -(-shape.n_points // n)]
    try:
        return sample_surface(shape, n, seed).points
    except ValueError as err:
        raise UserError("A mesh without area cannot be compared.") from err


def _volume(shape: Mesh | PointCloud) -> float | None:
    return float(volume(shape)) if isinstance(shape, Mesh) else None


def _box(shape: Mesh | PointCloud) -> Box:
    if isinstance(shape, Mesh):
        low, high = bounding_box(shape)
    else:
        low, high = shape.points.amin(dim=0), shape.points.amax(dim=0)
    return tuple(low.tolist()), tuple(high.tolist())

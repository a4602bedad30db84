"""A cloud of Gaussians as a field: its density and colour at any point."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from maquette.kernels.nearest import nearest
from maquette.ops.gaussians import Gaussians, covariances, peak_densities

REACH = 3.0
"""Standard deviations beyond which a Gaussian is taken to be nothing."""
INVISIBLE = 1 / 255
"""Opacity below which a Gaussian is not drawn, and does not count here."""
SMALLEST = 1e-6
"""Standard deviation that a Gaussian has at least, world units."""
NOTHING = 1e-12
"""Density below which a point has no colour of its own, per world unit."""
PAIRS_PER_CHUNK = 2**20
"""Pairs of point and Gaussian that are evaluated at once."""
MOST_ENTRIES = 2**23
"""Of the table of cells; cells grow until it is met."""
FINENESS = 0.25
"""Size of a cell, in sides of a mean box."""
COARSER = 1.5


@dataclass(frozen=True, eq=False)
class FieldValues:
    """The field at M points."""

    density: Float[Tensor, "M 1"]
    """Per world unit, see `ops.gaussians.peak_densities`."""
    colors: Float[Tensor, "M 3"]
    """Mean colour of the Gaussians there, weighted by density; the nearest one's where there is none."""
    normals: Float[Tensor, "M 3"]
    """Unit vectors against the gradient of the density; zero where it has none."""


class GaussianField:
    """Answers by looking only at the Gaussians that reach into the cell of a regular grid a point lies in.

    Args:
        gaussians: in the world frame.
        blur: standard deviation (world units) of a Gaussian that the density is convolved with, so that a
            grid of points as far apart cannot miss anything (Yu et al. 2024, Mip-Splatting, eq. 9).
    """

    def __init__(self, gaussians: Gaussians, blur: float = 0.0) -> None:
        gaussians = gaussians[gaussians.opacities >= gaussians.opacities.max().clamp(max=INVISIBLE)]
        sharp = gaussians.scales.clamp(min=SMALLEST)
        scales = (sharp.square() + blur**2).sqrt()
        self.means, self.colors = gaussians.means, gaussians.colors
        self.peaks = peak_densities(gaussians.opacities, sharp) * (sharp / scales).prod(dim=-1)
        self.precisions = covariances(gaussians.rotations, 1.0 / scales)
        reach = REACH * covariances(gaussians.rotations, scales).diagonal(dim1=1, dim2=2).sqrt()
        self.cells = Cells(self.means - reach, self.means + reach)

    def density_at(self, points: Float[Tensor, "M 3"]) -> Float[Tensor, "M 1"]:
        """The density alone, in a third of the time."""
        parts = [self._summed(part, lambda one, pull: None) for part in self._chunks(points)]
        return torch.cat([points.new_zeros(0, 1), *parts])

    def at(self, points: Float[Tensor, "M 3"]) -> FieldValues:
        """The field at world points."""
        parts = [
            self._summed(part, lambda one, pull: torch.cat([self.colors[one], pull], dim=-1))
            for part in self._chunks(points)
        ]
        summed = torch.cat([points.new_zeros(0, 7), *parts])
        density = summed[:, :1]
        colors = summed[:, 1:4] / density.clamp(min=NOTHING)
        alone = (density < NOTHING)[:, 0]
        if bool(alone.any()):
            colors[alone] = self.colors[nearest(points[alone], self.means)[1]]
        return FieldValues(density, colors, F.normalize(summed[:, 4:], dim=-1, eps=1e-20))

    def _chunks(self, points: Tensor) -> Iterator[Tensor]:
        """Parts of the points that meet about equally many Gaussians."""
        total = self.cells.counts_at(points).cumsum(dim=0)
        part = torch.div(total, PAIRS_PER_CHUNK, rounding_mode="floor")
        sizes = torch.unique_consecutive(part, return_counts=True)[1].tolist()
        yield from torch.split(points, sizes) if sizes else ()

    def _summed(
        self, points: Tensor, values: Callable[[Tensor, Tensor], Tensor | None]
    ) -> Float[Tensor, "M C"]:
        """Sums over the Gaussians of weight and of weight times values.

        `values` get the index of a Gaussian and minus the gradient of the logarithm of its weight, for each
        pair that counts.
        """
        point, one = self.cells.pairs(points)
        offset = points[point] - self.means[one]
        pull = (self.precisions[one] * offset[:, None, :]).sum(dim=-1)
        squared = (pull * offset).sum(dim=-1)
        near = (squared <= REACH**2).nonzero()[:, 0]
        point, one = point[near], one[near]
        weight = (self.peaks[one] * torch.exp(-0.5 * squared[near]))[:, None]
        more = values(one, pull[near])
        columns = weight if more is None else torch.cat([weight, weight * more], dim=-1)
        return points.new_zeros(len(points), columns.shape[1]).index_add(0, point, columns)


class Cells:
    """Which boxes reach into which cell of a regular grid.

    Args:
        low: lower corners of the boxes.
        high: upper corners.
    """

    def __init__(self, low: Float[Tensor, "N 3"], high: Float[Tensor, "N 3"]) -> None:
        self.low = low.amin(dim=0)
        size = float((high - low).mean()) * FINENESS
        while True:
            first, last = self._cell(low, size), self._cell(high, size)
            shape, counts = last - first + 1, (last - first + 1).prod(dim=-1)
            if int(counts.sum()) <= MOST_ENTRIES or int(shape.amax()) == 1:
                break
            size *= COARSER
        self.size, self.shape = size, last.amax(dim=0) + 1
        box = torch.repeat_interleave(torch.arange(len(low), device=low.device), counts)
        within = torch.arange(len(box), device=low.device) - (counts.cumsum(dim=0) - counts)[box]
        _, wide, deep = shape[box].unbind(dim=-1)
        steps = torch.stack([within // (wide * deep), within // deep % wide, within % deep], dim=-1)
        cell = self._number(first[box] + steps)
        self.members = box[cell.argsort(stable=True)]
        self.counts = torch.bincount(cell, minlength=int(self.shape.prod()))
        self.starts = self.counts.cumsum(dim=0) - self.counts

    def counts_at(self, points: Float[Tensor, "M 3"]) -> Int[Tensor, " M"]:
        """Number of boxes that reach into the cell of each point."""
        cell, inside = self._find(points)
        return self.counts[cell] * inside

    def pairs(self, points: Float[Tensor, "M 3"]) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
        """Indices of points, and for each of them the boxes that reach into its cell."""
        cell, inside = self._find(points)
        counts = self.counts[cell] * inside
        point = torch.repeat_interleave(torch.arange(len(points), device=points.device), counts)
        within = torch.arange(len(point), device=points.device) - (counts.cumsum(dim=0) - counts)[point]
        return point, self.members[self.starts[cell[point]] + within]

    def _find(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Number of the cell of each point, and whether it lies in the grid at all."""
        cell = self._cell(points, self.size)
        inside = ((cell >= 0) & (cell < self.shape)).all(dim=-1)
        return self._number(cell.clamp(min=0).minimum(self.shape - 1)), inside

    def _cell(self, points: Tensor, size: float) -> Tensor:
        return ((points - self.low) / size).floor().long()

    def _number(self, cell: Tensor) -> Tensor:
        return (cell[..., 0] * self.shape[1] + cell[..., 1]) * self.shape[2] + cell[..., 2]

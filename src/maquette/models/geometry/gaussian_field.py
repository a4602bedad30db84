"""A cloud of Gaussians as a field: its density and colour at any point."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.device import autocast_off
from maquette.core.errors import RunFailed
from maquette.kernels.nearest import nearest
from maquette.ops.gaussians import FLAT, Gaussians, covariances, peak_densities

REACH = 3.0
"""Standard deviations beyond which a Gaussian is taken to be nothing."""
INVISIBLE = 1 / 255
"""Opacity below which a Gaussian is not drawn, and does not count here."""
NOTHING = 1e-12
"""Density below which a point has no colour of its own, per world unit."""
PAIRS_AT_ONCE = 2**20
"""Pairs of point and Gaussian whose weights are held at once."""
MOST_ENTRIES = 2**23
"""Of the table of cells, and cells; they grow until it is met."""
FINENESS = 0.5
"""Size of a cell, in sides of a mean box."""
COARSER = 1.5


@dataclass(frozen=True, eq=False)
class FieldValues:
    """The field at M points."""

    density: Float[Tensor, "M 1"]
    """Per world unit, see `ops.gaussians.peak_densities`."""
    colors: Float[Tensor, "M 3"]
    """Mean colour of the Gaussians there, weighted by density; the nearest one's where there is none."""
    normals: Float[Tensor, "M 3"] | None
    """Unit vectors against the gradient of the density; zero where it has none."""


class GaussianField:
    """Answers by looking only at the Gaussians that reach into the cell of a regular grid a point lies in.

    Args:
        gaussians: in the world frame.
        blur: standard deviation (world units) of a Gaussian that the density is convolved with, so that a
            grid of points as far apart cannot miss anything (Yu et al. 2024, Mip-Splatting, eq. 9).

    Raises:
        RunFailed: no Gaussian is finite; those that are not are left out.
    """

    def __init__(self, gaussians: Gaussians, blur: float = 0.0) -> None:
        gaussians = _finite(gaussians)
        gaussians = gaussians[gaussians.opacities >= gaussians.opacities.max().clamp(max=INVISIBLE)]
        sharp = gaussians.scales.clamp(min=FLAT)
        scales = (sharp.square() + blur**2).sqrt()
        self.means, self.colors = gaussians.means, gaussians.colors
        self.peaks = peak_densities(gaussians.opacities, sharp) * (sharp / scales).prod(dim=-1)
        with autocast_off(scales.device):
            self.precisions = covariances(gaussians.rotations, 1.0 / scales)
            reach = REACH * covariances(gaussians.rotations, scales).diagonal(dim1=1, dim2=2).sqrt()
        self.cells = Cells(self.means - reach, self.means + reach)

    def density_at(self, points: Float[Tensor, "M 3"]) -> Float[Tensor, "M 1"]:
        """The density alone."""
        with autocast_off(points.device):
            return self._summed(points, torch.ones_like(self.peaks)[:, None])

    def at(self, points: Float[Tensor, "M 3"], normals: bool = False) -> FieldValues:
        """The field at world points."""
        with autocast_off(points.device):
            return self._at(points, normals)

    def _at(self, points: Float[Tensor, "M 3"], normals: bool) -> FieldValues:
        values = [torch.ones_like(self.peaks)[:, None], self.colors]
        if normals:
            pulls = (self.precisions @ self.means[..., None])[..., 0]
            values += [pulls, self.precisions.flatten(start_dim=1)]
        summed = self._summed(points, torch.cat(values, dim=-1))
        density = summed[:, :1]
        colors = summed[:, 1:4] / density.clamp(min=NOTHING)
        alone = (density < NOTHING)[:, 0]
        if bool(alone.any()):
            colors[alone] = self.colors[nearest(points[alone], self.means)[1]]
        if not normals:
            return FieldValues(density, colors, None)
        slope = (summed[:, 7:].reshape(-1, 3, 3) @ points[..., None])[..., 0] - summed[:, 4:7]
        return FieldValues(density, colors, F.normalize(slope, dim=-1, eps=1e-20))

    def _summed(self, points: Tensor, values: Float[Tensor, "N C"]) -> Float[Tensor, "M C"]:
        """At each point the sum of the values of all Gaussians, times their densities there."""
        summed = points.new_zeros(len(points), values.shape[1])
        for rows, members in self.cells.visits(points):
            middle = points[rows].mean(dim=0)
            means, precisions = self.means[members] - middle, self.precisions[members]
            pulls = (precisions @ means[..., None])[..., 0]
            constant = (pulls * means).sum(dim=-1, keepdim=True)
            form = torch.cat([precisions.flatten(start_dim=1), -2.0 * pulls, constant], dim=-1)
            weighted = self.peaks[members, None] * values[members]
            for part in torch.split(rows, max(1, PAIRS_AT_ONCE // len(members))):
                squared = _monomials(points[part] - middle) @ form.T
                weights = torch.exp(-0.5 * squared).masked_fill_(~(squared <= REACH**2), 0.0)
                summed[part] = weights @ weighted
        return summed


def _finite(gaussians: Gaussians) -> Gaussians:
    """Those whose values, and squares of lengths, are finite."""
    lengths = torch.cat([gaussians.means, gaussians.scales], dim=-1).square()
    others = [gaussians.rotations, gaussians.opacities[:, None], gaussians.sh.flatten(start_dim=1)]
    usable = torch.cat([lengths, *others], dim=-1).isfinite().all(dim=-1)
    if not bool(usable.any()):
        raise RunFailed(
            "The cloud has no surface: none of its Gaussians is finite.",
            [f"Gaussians: {gaussians.n}"],
            "Lower the learning rates of the geometry, or export an earlier checkpoint.",
        )
    return gaussians[usable]


def _monomials(points: Float[Tensor, "M 3"]) -> Float[Tensor, "M 13"]:
    """All products of two coordinates, the coordinates, and one."""
    products = (points[:, :, None] * points[:, None, :]).flatten(start_dim=1)
    return torch.cat([products, points, torch.ones_like(points[:, :1])], dim=-1)


class Cells:
    """Which boxes reach into which cell of a regular grid.

    Args:
        low: lower corners of the boxes.
        high: upper corners.
    """

    def __init__(self, low: Float[Tensor, "N 3"], high: Float[Tensor, "N 3"]) -> None:
        self.low = low.amin(dim=0)
        extent = (high.amax(dim=0) - self.low).double()
        size = max(float((high - low).mean()) * FINENESS, FLAT)
        while float((extent / size).floor().add(1.0).prod()) > MOST_ENTRIES:
            size *= COARSER
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
        number = self._number(first[box] + steps)
        self.members = box[number.argsort(stable=True)]
        self.counts = torch.bincount(number, minlength=int(self.shape.prod()))
        self.starts = self.counts.cumsum(dim=0) - self.counts

    def visits(self, points: Float[Tensor, "M 3"]) -> Iterator[tuple[Int[Tensor, " K"], Int[Tensor, " L"]]]:
        """For each cell that has points and boxes: indices of both."""
        cell = self._cell(points, self.size)
        inside = ((cell >= 0) & (cell < self.shape)).all(dim=-1).nonzero()[:, 0]
        number = self._number(cell[inside])
        inside, number = inside[self.counts[number] > 0], number[self.counts[number] > 0]
        order = number.argsort()
        numbers, sizes = torch.unique_consecutive(number[order], return_counts=True)
        rows = torch.split(inside[order], sizes.tolist())
        starts, ends = self.starts[numbers].tolist(), (self.starts + self.counts)[numbers].tolist()
        for some, start, end in zip(rows, starts, ends, strict=False):
            yield some, self.members[start:end]

    def _cell(self, points: Tensor, size: float) -> Tensor:
        return ((points - self.low) / size).floor().long()

    def _number(self, cell: Tensor) -> Tensor:
        return (cell[..., 0] * self.shape[1] + cell[..., 1]) * self.shape[2] + cell[..., 2]

"""Which cells of space hold matter, so that rays need not look at the others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

DensityFn = Callable[[Tensor], Tensor]

WARMUP_STEPS = 256
"""Steps in which every cell is looked at; later a part is sampled."""
UPDATE_EVERY = 16
DECAY = 0.95
"""Factor on what a cell held, at each update."""
THRESHOLD = 0.01
"""A cell with less optical thickness over a step than this (or than the mean, if less) counts as empty."""


class OccupancyGrid(nn.Module):
    """A cubic grid with a running maximum of optical thickness (Muller et al. 2022, Instant-NGP, appendix C).

    Args:
        box: lower and upper corner, world units.
        resolution: cells per axis.
    """

    occs: Float[Tensor, "N"]
    binaries: Bool[Tensor, "X Y Z"]
    box: Float[Tensor, "2 3"]

    def __init__(self, box: Float[Tensor, "2 3"], resolution: int) -> None:
        super().__init__()
        self.resolution = resolution
        self.register_buffer("box", box.clone())
        self.register_buffer("occs", torch.zeros(resolution**3))
        self.register_buffer("binaries", torch.ones(resolution, resolution, resolution, dtype=torch.bool))

    @staticmethod
    def is_due(step: int) -> bool:
        """Whether the grid wants an update before this step."""
        return step % UPDATE_EVERY == 0

    @torch.no_grad()
    def update(self, step: int, optical_thickness: DensityFn, generator: torch.Generator) -> None:
        """Look at cells and decide anew which are occupied.

        Args:
            step: optimiser step.
            optical_thickness: (N, 3) world points to (N,) density times step length.
            generator: source of the cells and of the points in them (CPU).
        """
        cells = self._cells(step, generator)
        seen = optical_thickness(self._points_in(cells, generator)).reshape(-1).to(self.occs)
        # Several looks at one cell keep the largest; the order of cells does not matter.
        faded = self.occs.clone()
        faded[cells] *= DECAY
        self.occs.copy_(faded.scatter_reduce(0, cells, seen, "amax"))
        self.binaries.copy_((self.occs > self.threshold()).reshape(self.binaries.shape))

    def threshold(self) -> Tensor:
        """Optical thickness above which a cell is occupied."""
        return self.occs.mean().clamp(max=THRESHOLD)

    def _cells(self, step: int, generator: torch.Generator) -> Int[Tensor, "K"]:
        """All cells in the warm-up; later a quarter at random and as many of the occupied ones."""
        total = self.occs.numel()
        if step < WARMUP_STEPS:
            return torch.arange(total, device=self.occs.device)
        anywhere = torch.randint(total, (total // 4,), generator=generator)
        occupied = self.binaries.flatten().nonzero()[:, 0]
        if len(occupied) > total // 4:
            pick = torch.randint(len(occupied), (total // 4,), generator=generator)
            occupied = occupied[pick.to(occupied.device)]
        return torch.unique(torch.cat([anywhere.to(occupied.device), occupied]))

    def _points_in(self, cells: Tensor, generator: torch.Generator) -> Float[Tensor, "K 3"]:
        """A random point in each cell, world frame."""
        n = self.resolution
        corner = torch.stack([cells // (n * n), cells // n % n, cells % n], dim=-1).to(self.box.dtype)
        offset = torch.rand(len(cells), 3, generator=generator).to(corner)
        return self.box[0] + (corner + offset) / n * (self.box[1] - self.box[0])

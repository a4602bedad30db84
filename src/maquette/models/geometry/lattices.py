"""Grids whose nodes carry a level, and the differentiable surface that each of them makes of it."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.kernels.flexicubes import WEIGHTS, crossed_edges, crossed_nodes, flexicubes, grid_nodes
from maquette.kernels.isosurface import outside_at_border
from maquette.kernels.marching_tets import crossed_edges as crossed_tet_edges
from maquette.kernels.marching_tets import crossed_vertices, crossings
from maquette.ops import tet_grid
from maquette.ops.level_sets import sign_entropy

LATTICE_METHODS = ("mt", "flexicubes")
"""Values of `isosurface_method` whose surfaces are differentiable."""

LatticeSurface = tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"], dict[str, Tensor]]
"""Vertices, faces, and regularisers by name: sdf_regularity, deviation."""


class Lattice(Protocol):
    """Nodes in the unit cube; those on its surface count as outside, so that surfaces are closed."""

    nodes: Float[Tensor, "N 3"]
    cell: float
    """Distance between nodes along an axis."""
    reach: float
    """How far a node may move along an axis."""
    n_weights: int
    """Learned numbers of all cells; 0 for none."""

    def needed(self, level: Float[Tensor, "N"]) -> Int[Tensor, "K"]:
        """The nodes that the surface depends on."""
        ...

    def surface(
        self,
        level: Float[Tensor, "N"],
        offsets: Float[Tensor, "N 3"] | None = None,
        weights: Float[Tensor, "W"] | None = None,
        centred: bool = False,
    ) -> LatticeSurface:
        """Vertices in the unit cube, faces and regularisers; `offsets` are raw, `reach tanh` of them moves.

        `centred` asks for the faces that train best, where there is a choice.
        """
        ...


@dataclass(frozen=True, eq=False)
class TetLattice:
    """Tetrahedra of the cube, and marching tetrahedra in them."""

    nodes: Float[Tensor, "N 3"]
    tets: Int[Tensor, "T 4"]
    border: Bool[Tensor, "N"]
    cell: float
    reach: float
    n_weights: int = 0

    def needed(self, level: Float[Tensor, "N"]) -> Int[Tensor, "K"]:
        """The nodes that the surface depends on."""
        return crossed_vertices(tet_grid.outside_at_border(level, self.border), self.tets)

    def surface(
        self,
        level: Float[Tensor, "N"],
        offsets: Float[Tensor, "N 3"] | None = None,
        weights: Float[Tensor, "W"] | None = None,
        centred: bool = False,
    ) -> LatticeSurface:
        """See `Lattice`."""
        nodes = self.nodes if offsets is None else self.nodes + self.reach * torch.tanh(offsets)
        closed = tet_grid.outside_at_border(level, self.border)
        faces, inside, outside = crossed_tet_edges(closed, self.tets)
        entropy = sign_entropy(closed[inside], closed[outside])
        return crossings(nodes, closed, inside, outside), faces, {"sdf_regularity": entropy}


@dataclass(frozen=True, eq=False)
class CubeLattice:
    """A regular grid, and FlexiCubes in its cells."""

    nodes: Float[Tensor, "N 3"]
    cells: int
    """Along an axis."""

    @property
    def cell(self) -> float:
        """Distance between nodes along an axis."""
        return 1.0 / self.cells

    @property
    def reach(self) -> float:
        """How far a node may move along an axis."""
        return 0.5 / self.cells

    @property
    def n_weights(self) -> int:
        """Learned numbers of all cells."""
        return WEIGHTS * self.cells**3

    def needed(self, level: Float[Tensor, "N"]) -> Int[Tensor, "K"]:
        """The nodes that the surface depends on."""
        return crossed_nodes(outside_at_border(self._as_grid(level)))

    def surface(
        self,
        level: Float[Tensor, "N"],
        offsets: Float[Tensor, "N 3"] | None = None,
        weights: Float[Tensor, "W"] | None = None,
        centred: bool = False,
    ) -> LatticeSurface:
        """See `Lattice`."""
        box = level.new_tensor([[0.0] * 3, [1.0] * 3])
        moved = None if offsets is None else self._as_grid(self.reach * torch.tanh(offsets))
        own = None if weights is None else weights.reshape(*[self.cells] * 3, WEIGHTS)
        closed = outside_at_border(self._as_grid(level))
        vertices, faces, deviation = flexicubes(closed, box, own, moved, centred)
        inside, outside = crossed_edges(closed)
        entropy = sign_entropy(closed.reshape(-1)[inside], closed.reshape(-1)[outside])
        return vertices, faces, {"sdf_regularity": entropy, "deviation": deviation}

    def _as_grid(self, values: Tensor) -> Tensor:
        return values.reshape(*[self.cells + 1] * 3, *values.shape[1:])


@lru_cache(maxsize=8)
def lattice_for(method: str, resolution: int, device: torch.device) -> TetLattice | CubeLattice:
    """The lattice of a method: tetrahedra as `tet_grid` makes them, or `resolution` cubes an axis.

    Raises:
        ConfigError: a method without a lattice, or a resolution below 4.
    """
    if method == "mt":
        grid = tet_grid.tet_grid(resolution)
        cell = 1.0 / round((len(grid.tets) / 12) ** (1 / 3))
        columns = grid.tets.T.contiguous().to(device)
        return TetLattice(grid.vertices.to(device), columns.T, grid.border.to(device), cell, 1.0 / resolution)
    if method != "flexicubes":
        raise ConfigError("system.geometry.isosurface_method", method, f"one of {LATTICE_METHODS}")
    if resolution < 4:
        raise ConfigError("system.geometry.isosurface_resolution", resolution, "an integer >= 4")
    unit = torch.tensor([[0.0] * 3, [1.0] * 3], device=device)
    return CubeLattice(grid_nodes((resolution + 1,) * 3, unit).reshape(-1, 3), resolution)

"""Cases of the differentiable isosurfaces: marching tetrahedra and FlexiCubes of a torus."""

from collections.abc import Callable, Sequence

import isosurface_twins as twins
import torch
from measure import Case
from torch import Tensor

from maquette.kernels.flexicubes import flexicubes, grid_nodes
from maquette.kernels.marching_tets import marching_tetrahedra
from maquette.ops.tet_grid import tet_grid


def cases(repeats_scale: float) -> list[Case]:
    """A small grid of 5 000 elements, and the sizes that recipes use."""
    side = repeats_scale ** (1 / 3)
    return [
        *(tetrahedra(max(8, round(resolution * side))) for resolution in (19, 64)),
        *(cubes(max(6, round(cells * side))) for cells in (17, 64)),
    ]


def tetrahedra(resolution: int) -> Case:
    """Twin: all edges of all tetrahedra are made unique, every case is looked for everywhere."""
    grid = tet_grid(resolution)
    default = torch.get_default_device()
    vertices, tets = (t.to(default) for t in (grid.vertices, grid.tets))
    vertices.requires_grad_()
    level = torus(2.0 * vertices.detach() - 1.0).requires_grad_()
    return Case(
        name=f"marching tetrahedra, resolution {resolution}",
        pairs=len(tets),
        kernel=trained(lambda: marching_tetrahedra(vertices, level, tets)[:1], vertices, level),
        twin=trained(lambda: twins.marching_tetrahedra(vertices, level, tets)[:1], vertices, level),
        bytes=len(tets) * 36 + len(vertices) * 32,
    )


def cubes(cells: int) -> Case:
    """Twin: all cells and all edges of the grid at once, the empty ones masked."""
    torch.manual_seed(0)
    box = torch.tensor([[-1.0] * 3, [1.0] * 3])
    nodes = grid_nodes((cells + 1,) * 3, box)
    weights, moves = torch.randn(cells, cells, cells, 21), 0.1 / cells * torch.randn_like(nodes)
    inputs = [t.requires_grad_() for t in (torus(nodes), weights, moves)]
    return Case(
        name=f"flexicubes, {cells}^3 cells",
        pairs=cells**3,
        kernel=trained(lambda: flexicubes(inputs[0], box, *inputs[1:])[::2], *inputs),
        twin=trained(lambda: twins.flexicubes(inputs[0], box, *inputs[1:])[::2], *inputs),
        bytes=(cells + 1) ** 3 * 8,
    )


def torus(points: Tensor) -> Tensor:
    """Signed distance to a torus around z, large and small radius 0.6 and 0.25."""
    x, y, z = points.unbind(-1)
    return (((x * x + y * y).sqrt() - 0.6).square() + z * z).sqrt() - 0.25


def trained(surface: Callable[[], Sequence[Tensor]], *leaves: Tensor) -> Callable[[], object]:
    """Forward and backward to the leaves."""

    def step() -> None:
        parts = surface()
        torch.autograd.grad(sum(part.sum() for part in parts), leaves)

    return step

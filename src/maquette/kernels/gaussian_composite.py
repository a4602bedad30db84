"""Splats blended into pictures, tile by tile."""

from dataclasses import dataclass
from typing import Any

import torch
import warp as wp
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from maquette.kernels.gaussian_composite_kernels import (
    FLAT_SUMS,
    SOLID_SUMS,
    blend_backward_kernel,
    blend_kernel,
    sum_entries,
)
from maquette.kernels.gaussian_tiles import SIDE, Grid, TileLists
from maquette.kernels.launch import array, launch_rows

Pictures = tuple[Float[Tensor, "B H W D"], Float[Tensor, "B H W"], Float[Tensor, "B H W"]]


@dataclass(frozen=True, eq=False)
class Plan:
    """What the blending of some splats shares between forward and backward."""

    grid: Grid
    lists: TileLists
    flat: bool

    @property
    def lanes(self) -> int:
        """Pixels that a thread works on at once: a row of a tile on a CPU, one on a GPU."""
        return SIDE if self.lists.reach.device.type == "cpu" else 1

    @property
    def threads(self) -> int:
        """Number of blocks."""
        return self.grid.tiles * (SIDE // self.lanes) ** 2

    def launch(self, kernel: Any, args: list[Any]) -> None:
        """Launch over the blocks of all tiles."""
        tiles = wp.vec2i(self.grid.rows, self.grid.columns)
        args = [self.lanes, tiles, array(self.lists.starts), array(self.lists.splats), *args]
        launch_rows(kernel, self.threads, args, self.lists.reach.device, smallest=4)


def blend_splats(splats: Float[Tensor, "S F"], features: Float[Tensor, "S D"], plan: Plan) -> Pictures:
    """Sum of weight times features, sum of weight times depth, and the light that is left, of each pixel.

    The weight of a splat is its opacity there times the light that passes those before it (Kerbl et al.
    2023, eq. 3). Differentiable to both arguments; no atomic operations on a CPU, one order of summation.

    Args:
        splats: Rows of centre x y, frame 00 01 10 11, slant x y, depth, opacity.
        features: Anything to be blended.
        plan: Tile lists of these splats.
    """
    pictures: Pictures = _Blend.apply(splats, features, plan)
    return pictures


class _Blend(Function):
    """(splats, features) -> (features, depth, light)."""

    @staticmethod
    def forward(ctx: Any, splats: Tensor, features: Tensor, plan: Plan) -> Pictures:
        tiles, device = plan.grid.tiles, splats.device
        color = torch.zeros(tiles, features.shape[1], SIDE, SIDE, device=device)
        depth = torch.zeros(tiles, SIDE, SIDE, device=device)
        light = to_planes(torch.ones(_size(plan.grid, 1), device=device), plan.grid)[:, 0].contiguous()
        last = torch.full((tiles, SIDE, SIDE), -1, dtype=torch.int32, device=device)
        inputs = [array(plan.lists.reach, wp.vec3), array(splats), array(features)]
        outputs = [_runs(color, plan), _runs(depth, plan), _runs(light, plan), _runs(last, plan)]
        plan.launch(blend_kernel(plan.lanes, plan.flat), [*inputs, *outputs])
        ctx.save_for_backward(splats, features, light, last)
        ctx.plan = plan
        pictures = (to_pictures(planes, plan.grid) for planes in (color, depth[:, None], light[:, None]))
        color, depth, light = pictures
        return color, depth[..., 0], light[..., 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        splats, features, light, last = ctx.saved_tensors
        plan: Plan = ctx.plan
        grad_color, grad_depth, grad_light = (
            to_planes(grad.view(_size(plan.grid, -1)), plan.grid) for grad in grads
        )
        entries = len(plan.lists.entries)
        by_entry = splats.new_zeros(entries, splats.shape[1]), features.new_zeros(entries, features.shape[1])
        inputs = [array(plan.lists.reach, wp.vec3), array(splats), array(features), array(plan.lists.entries)]
        inputs += [_runs(planes, plan) for planes in (last, grad_color, grad_depth[:, 0])]
        scratch = [_runs(planes, plan) for planes in (light.clone(), grad_light[:, 0] * light)]
        sums = (FLAT_SUMS if plan.flat else SOLID_SUMS) + features.shape[1]
        scratch.append(array(light.new_empty(plan.threads, sums, plan.lanes), _vector(plan, wp.float32)))
        outputs = [*scratch, *(array(grad) for grad in by_entry)]
        plan.launch(blend_backward_kernel(plan.lanes, plan.flat), [*inputs, *outputs])
        to_splats, to_features = (_sum_by_splat(grad, plan) for grad in by_entry)
        return to_splats, to_features, None


def _sum_by_splat(by_entry: Tensor, plan: Plan) -> Tensor:
    first = plan.lists.first_entries
    sums = by_entry.new_zeros(len(first) - 1, by_entry.shape[1])
    launch_rows(sum_entries, len(sums), [array(first), array(by_entry), array(sums)], sums.device)
    return sums


def _runs(planes: Tensor, plan: Plan) -> Any:
    """Planes as arrays of runs of lanes, the last axis which run."""
    kind = wp.int32 if planes.dtype == torch.int32 else wp.float32
    shape = (*planes.shape[:-1], SIDE // plan.lanes, plan.lanes)
    return array(planes.view(shape), _vector(plan, kind))


def _vector(plan: Plan, kind: Any) -> Any:
    return wp.types.vector(plan.lanes, kind)


def _size(grid: Grid, channels: int) -> tuple[int, int, int, int]:
    return grid.views, grid.height, grid.width, channels


def to_planes(pictures: Float[Tensor, "B H W D"], grid: Grid) -> Float[Tensor, "T D side side"]:
    """Pictures cut into tiles, zero beyond their edges."""
    beyond = (0, 0, 0, grid.columns * SIDE - grid.width, 0, grid.rows * SIDE - grid.height)
    tiles = pad(pictures, beyond).view(grid.views, grid.rows, SIDE, grid.columns, SIDE, -1)
    return tiles.permute(0, 1, 3, 5, 2, 4).reshape(grid.tiles, -1, SIDE, SIDE)


def to_pictures(planes: Float[Tensor, "T D side side"], grid: Grid) -> Float[Tensor, "B H W D"]:
    """Tiles put together again."""
    tiles = planes.view(grid.views, grid.rows, grid.columns, -1, SIDE, SIDE).permute(0, 1, 4, 2, 5, 3)
    whole = tiles.reshape(grid.views, grid.rows * SIDE, grid.columns * SIDE, -1)
    return whole[:, : grid.height, : grid.width].contiguous()

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
    vec16,
)
from maquette.kernels.gaussian_lanes import FEATURES, LINE
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

    def pictures(self, channels: int, like: Tensor) -> Float[Tensor, "B H W channels"]:
        """Pictures that are not filled yet."""
        return like.new_empty(self.grid.views, self.grid.height, self.grid.width, channels)

    def planes(self, like: Tensor, *channels: int) -> Tensor:
        """Tiles [tile, channels, row, lane] that are not filled yet."""
        return like.new_empty(self.grid.tiles, *channels, SIDE, SIDE)

    def runs(self, planes: Tensor) -> Any:
        """Planes as an array of vectors, the last axis which run of lanes."""
        kind = wp.int32 if planes.dtype == torch.int32 else wp.float32
        return array(planes.view(*planes.shape[:-1], SIDE // self.lanes, self.lanes), self.vector(kind))

    def vector(self, kind: Any) -> Any:
        """The lanes that a thread works on at once."""
        return wp.types.vector(self.lanes, kind)

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
        channels = features.shape[1]
        table = torch.cat([splats, plan.lists.reach, features], dim=1)
        table = pad(table, (0, -table.shape[1] % LINE))
        color, depth, light = (plan.pictures(n, table) for n in (channels, 1, 1))
        left, last = plan.planes(table), plan.planes(table).int()
        scratch = [plan.planes(table, channels), plan.planes(table), left, last]
        outputs = [*(plan.runs(planes) for planes in scratch), array(color), array(depth), array(light)]
        plan.launch(blend_kernel(plan.lanes, plan.flat), [array(table), channels, *outputs])
        ctx.save_for_backward(table, left, last)
        ctx.plan, ctx.fields, ctx.channels = plan, splats.shape[1], channels
        return color, depth[..., 0], light[..., 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        table, left, last = ctx.saved_tensors
        plan: Plan = ctx.plan
        inputs = [array(table), ctx.channels, plan.runs(last)]
        inputs += [array(grads[0]), array(grads[1][..., None]), array(grads[2][..., None])]
        scratch = [plan.planes(table, ctx.channels), plan.planes(table), left.clone(), plan.planes(table)]
        count = (FLAT_SUMS if plan.flat else SOLID_SUMS) + ctx.channels
        sums = table.new_empty(plan.threads, count, plan.lanes)
        by_place = table.new_zeros(len(plan.lists.places), table.shape[1])
        outputs = [*(plan.runs(planes) for planes in scratch), array(sums, plan.vector(wp.float32))]
        plan.launch(blend_backward_kernel(plan.lanes, plan.flat), [*inputs, *outputs, array(by_place)])
        by_splat = _sum_by_splat(by_place, plan.lists)
        return by_splat[:, : ctx.fields], by_splat[:, FEATURES : FEATURES + ctx.channels], None


def _sum_by_splat(by_place: Tensor, lists: TileLists) -> Tensor:
    sums = by_place.new_empty(len(lists.reach), by_place.shape[1])
    lines = [array(rows.view(len(rows), rows.shape[1] // LINE, LINE), vec16) for rows in (by_place, sums)]
    args = [array(lists.first_entries), array(lists.places), *lines]
    launch_rows(sum_entries, len(sums), args, sums.device)
    return sums

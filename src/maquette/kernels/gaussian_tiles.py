"""Which Gaussians reach which tile of a picture, nearest first."""

# mypy: disable-error-code="index, misc, operator"
# (bodies of kernels are Warp's language)

from dataclasses import dataclass

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from maquette.kernels.launch import MODULE_OPTIONS, array, launch_rows

wp.set_module_options(MODULE_OPTIONS)

SIDE = 16
"""Pixels along each side of a tile."""
FAINTEST = 1.0 / 255.0
"""Opacity below which a Gaussian leaves a pixel untouched (Kerbl et al. 2023)."""
BLUR = 2.0
"""Inverse variance of the low-pass filter of a flat Gaussian, 1 / pixel^2 (Huang et al. 2024, eq. 11)."""


@dataclass(frozen=True, eq=False)
class Grid:
    """B pictures cut into tiles, counted row by row, picture after picture."""

    views: int
    height: int
    width: int

    @property
    def rows(self) -> int:
        """Tiles from top to bottom."""
        return -(-self.height // SIDE)

    @property
    def columns(self) -> int:
        """Tiles from left to right."""
        return -(-self.width // SIDE)

    @property
    def tiles(self) -> int:
        """Tiles of all pictures."""
        return self.views * self.rows * self.columns


@dataclass(frozen=True, eq=False)
class TileLists:
    """Per tile, the E entries of the Gaussians that reach it; an entry is one Gaussian in one tile."""

    starts: Int[Tensor, " T1"]
    """First place of each tile in the two below, and the end of the last one (int32)."""
    splats: Int[Tensor, " E"]
    """Which Gaussian (of the B N on all pictures), nearest first in each tile (int32)."""
    entries: Int[Tensor, " E"]
    """Where the entry stands when entries are sorted by Gaussian (int32)."""
    first_entries: Int[Tensor, " S1"]
    """Per Gaussian its first entry in that order, and the end of the last one's (int32)."""
    reach: Float[Tensor, "S 2"]
    """Per Gaussian half the size of its box around its centre, x and y, pixels."""


@torch.no_grad()
def bin_splats(splats: Float[Tensor, "S 10"], radii: Int[Tensor, " S"], grid: Grid) -> TileLists:
    """Tile lists of splats (rows as in `gaussian_composite.pack`); radius zero is in no tile."""
    counts = torch.zeros_like(radii)
    reach = splats.new_zeros(len(radii), 2)
    packed, per_view = array(splats), len(radii) // max(1, grid.views)
    size = [per_view, grid.rows, grid.columns]
    launch_rows(count_tiles, len(radii), [packed, array(radii), *size, array(reach, wp.vec2), array(counts)],
                splats.device)  # fmt: skip
    first = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    total = int(first[-1])
    first = first.int()
    keys = torch.empty(total, dtype=torch.int64, device=splats.device)
    owners = torch.empty(total, dtype=torch.int32, device=splats.device)
    args = [packed, array(counts), *size, array(reach, wp.vec2), array(first), array(keys), array(owners)]
    launch_rows(list_tiles, len(radii), args, splats.device)
    keys, order = keys.sort(stable=True)
    edges = torch.arange(grid.tiles + 1, device=splats.device) << 32
    return TileLists(torch.searchsorted(keys, edges).int(), owners[order], order.int(), first, reach)


@wp.func
def frame_at(splats: wp.array2d[wp.float32], i: wp.int32) -> wp.mat22:
    """The matrix of a splat, see `gaussian_composite.pack`."""
    return wp.mat22(splats[i, 2], splats[i, 3], splats[i, 4], splats[i, 5])


@wp.func
def squared_cutoff(opacity: wp.float32) -> wp.float32:
    """|s|^2 at which the opacity has fallen to FAINTEST; not positive where there is nothing to see."""
    return 2.0 * wp.log(opacity / FAINTEST)


@wp.func
def half_size(splats: wp.array2d[wp.float32], i: wp.int32, far: wp.float32) -> wp.vec2:
    """Half the box around the centre of what is less than sqrt(far) units away (Sigg et al. 2006, eq. 9)."""
    axes = wp.inverse(frame_at(splats, i))
    tilt = -wp.transpose(axes) @ wp.vec2(splats[i, 6], splats[i, 7])
    inner = 1.0 - far * wp.dot(tilt, tilt)
    if inner <= 1.0e-3:
        return wp.vec2(1.0e6, 1.0e6)
    blur = wp.sqrt(far / BLUR)
    half = wp.vec2(blur, blur)
    for k in range(2):
        middle = -far * (axes[k, 0] * tilt[0] + axes[k, 1] * tilt[1]) / inner
        size = far * (axes[k, 0] * axes[k, 0] + axes[k, 1] * axes[k, 1]) / inner
        half[k] = wp.max(half[k], wp.abs(middle) + wp.sqrt(middle * middle + size))
    return half


@wp.func
def tile_range(centre: wp.float32, half: wp.float32, tiles: wp.int32) -> wp.vec2i:
    """First tile and end of the tiles along one axis whose pixel centres may be within `half`."""
    low = wp.floor((centre - half - 0.5) / wp.float32(SIDE))
    high = wp.floor((centre + half - 0.5) / wp.float32(SIDE)) + 1.0
    end = wp.float32(tiles)
    return wp.vec2i(wp.int32(wp.clamp(low, 0.0, end)), wp.int32(wp.clamp(high, 0.0, end)))


@wp.kernel
def count_tiles(
    first: wp.int32,
    splats: wp.array2d[wp.float32],
    radii: wp.array[wp.int32],
    per_view: wp.int32,
    rows: wp.int32,
    columns: wp.int32,
    reach: wp.array[wp.vec2],
    counts: wp.array[wp.int32],
) -> None:
    """How many tiles a splat reaches."""
    i = first + wp.tid()
    far = squared_cutoff(splats[i, 9])
    if radii[i] > 0 and far > 0.0 and wp.isfinite(far):
        half = half_size(splats, i, far)
        reach[i] = half
        x = tile_range(splats[i, 0], half[0], columns)
        y = tile_range(splats[i, 1], half[1], rows)
        counts[i] = wp.max(x[1] - x[0], 0) * wp.max(y[1] - y[0], 0)


@wp.kernel
def list_tiles(
    first: wp.int32,
    splats: wp.array2d[wp.float32],
    counts: wp.array[wp.int32],
    per_view: wp.int32,
    rows: wp.int32,
    columns: wp.int32,
    reach: wp.array[wp.vec2],
    first_entries: wp.array[wp.int32],
    keys: wp.array[wp.int64],
    owners: wp.array[wp.int32],
) -> None:
    """The entries of a splat with their keys: the tile, then the depth, whose bits order as integers do."""
    i = first + wp.tid()
    if counts[i] == 0:
        return
    x = tile_range(splats[i, 0], reach[i][0], columns)
    y = tile_range(splats[i, 1], reach[i][1], rows)
    depth = wp.int64(wp.cast(splats[i, 8], wp.int32))
    base = (i / per_view) * rows * columns
    entry = first_entries[i]
    for row in range(y[0], y[1]):
        for column in range(x[0], x[1]):
            tile = base + row * columns + column
            keys[entry] = (wp.int64(tile) << wp.int64(32)) | depth
            owners[entry] = i
            entry += 1

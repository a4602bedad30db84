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
    places: Int[Tensor, " E"]
    """Where an entry stands in `splats`, entries sorted by Gaussian (int32)."""
    first_entries: Int[Tensor, " S1"]
    """Per Gaussian its first entry in `places`, and the end of the last one's (int32)."""
    reach: Float[Tensor, "S 3"]
    """Per Gaussian half the size of its box around its centre, x and y, and its skew, see `band`; pixels."""


@torch.no_grad()
def bin_splats(
    splats: Float[Tensor, "S 10"],
    features: Float[Tensor, "S D"],
    radii: Int[Tensor, " S"],
    grid: Grid,
    flat: bool,
) -> TileLists:
    """Tile lists of splats (rows as of `gaussians.pack`).

    Those of radius zero or with a feature that is not finite are in no tile.
    """
    counts, reach = torch.zeros_like(radii), splats.new_zeros(len(radii), 3)
    size = [len(radii) // max(1, grid.views), wp.vec2i(grid.rows, grid.columns), flat]
    inputs = [array(splats), *size, array(reach, wp.vec3)]
    launch_rows(
        count_tiles, len(radii), [*inputs, array(features), array(radii), array(counts)], splats.device
    )
    first = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    keys = torch.empty(int(first[-1]), dtype=torch.int64, device=splats.device)
    owners = torch.empty_like(keys, dtype=torch.int32)
    first = first.int()
    launch_rows(list_tiles, len(radii), [*inputs, array(first), array(keys), array(owners)], splats.device)
    keys, order = keys.sort(stable=True)
    edges = torch.arange(grid.tiles + 1, device=splats.device) << 32
    places = torch.empty_like(owners)
    places[order] = torch.arange(len(order), dtype=torch.int32, device=splats.device)
    return TileLists(torch.searchsorted(keys, edges).int(), owners[order], places, first, reach)


@wp.func
def frame_at(splats: wp.array2d[wp.float32], i: wp.int32) -> wp.mat22:
    """The matrix of a splat, see `gaussians.pack`."""
    return wp.mat22(splats[i, 2], splats[i, 3], splats[i, 4], splats[i, 5])


@wp.func
def squared_cutoff(opacity: wp.float32) -> wp.float32:
    """|s|^2 at which the opacity has fallen to FAINTEST; not positive where there is nothing to see."""
    return 2.0 * wp.log(opacity / FAINTEST)


@wp.func
def reach_of(splats: wp.array2d[wp.float32], i: wp.int32, far: wp.float32, flat: wp.bool) -> wp.vec3:
    """Half the box of what is less than sqrt(far) units away, and its skew (Sigg et al. 2006, eq. 9)."""
    axes = wp.inverse(frame_at(splats, i))
    spread = axes @ wp.transpose(axes)
    if not flat:
        return wp.vec3(wp.sqrt(far * spread[0, 0]), wp.sqrt(far * spread[1, 1]), far * spread[0, 1])
    tilt = -wp.transpose(axes) @ wp.vec2(splats[i, 6], splats[i, 7])
    inner = 1.0 - far * wp.dot(tilt, tilt)
    if inner <= 1.0e-3:
        return wp.vec3(1.0e6, 1.0e6, 0.0)
    middle = -far / inner * (axes @ tilt)
    reach = wp.vec3()
    for k in range(2):
        half = wp.abs(middle[k]) + wp.sqrt(middle[k] * middle[k] + far / inner * spread[k, k])
        reach[k] = wp.max(half, wp.sqrt(far / BLUR))
    return reach


@wp.func
def band(
    along: wp.float32, across: wp.float32, skew: wp.float32, low: wp.float32, high: wp.float32
) -> wp.vec2:
    """Least and largest coordinate, on one axis, of an ellipse between two values on the other axis.

    The ellipse is d^T S^-1 d <= 1 with S = ((along^2, skew), (skew, across^2)). Its right side is concave in
    the other coordinate and turns at skew / along, its left side mirrored.
    """
    low, high = wp.max(low, -across), wp.min(high, across)
    if low > high:
        return wp.vec2(1.0, -1.0)
    slope = skew / (across * across)
    width = wp.sqrt(wp.max(along * along - slope * skew, 0.0))
    top, bottom = wp.clamp(skew / along, low, high), wp.clamp(-skew / along, low, high)
    right = slope * top + width * wp.sqrt(wp.max(1.0 - top * top / (across * across), 0.0))
    left = slope * bottom - width * wp.sqrt(wp.max(1.0 - bottom * bottom / (across * across), 0.0))
    return wp.vec2(left, right)


@wp.func
def tile_range(centre: wp.float32, extent: wp.vec2, tiles: wp.int32) -> wp.vec2i:
    """First tile and end of the tiles along one axis that have a pixel's centre between two offsets."""
    low = wp.floor((centre + extent[0] - 0.5) / wp.float32(SIDE))
    high = wp.floor((centre + extent[1] - 0.5) / wp.float32(SIDE)) + 1.0
    end = wp.float32(tiles)
    return wp.vec2i(wp.int32(wp.clamp(low, 0.0, end)), wp.int32(wp.clamp(high, 0.0, end)))


@wp.func
def rows_reached(splats: wp.array2d[wp.float32], i: wp.int32, reach: wp.vec3, grid: wp.vec2i) -> wp.vec2i:
    """First row and end of the rows of tiles that a splat reaches."""
    return tile_range(splats[i, 1], wp.vec2(-reach[1], reach[1]), grid[0])


@wp.func
def columns_reached(
    splats: wp.array2d[wp.float32], i: wp.int32, reach: wp.vec3, row: wp.int32, grid: wp.vec2i, flat: wp.bool
) -> wp.vec2i:
    """First column and end of the columns of tiles that a splat reaches in a row of tiles."""
    extent = wp.vec2(-reach[0], reach[0])
    if not flat:
        top = wp.float32(row * SIDE) + 0.5 - splats[i, 1]
        extent = band(reach[0], reach[1], reach[2], top, top + wp.float32(SIDE - 1))
    return tile_range(splats[i, 0], extent, grid[1])


@wp.kernel
def count_tiles(
    first: wp.int32,
    splats: wp.array2d[wp.float32],
    per_view: wp.int32,
    grid: wp.vec2i,
    flat: wp.bool,
    reach: wp.array[wp.vec3],
    features: wp.array2d[wp.float32],
    radii: wp.array[wp.int32],
    counts: wp.array[wp.int32],
) -> None:
    """How many tiles a splat reaches."""
    i = first + wp.tid()
    far = squared_cutoff(splats[i, 9])
    usable = radii[i] > 0 and far > 0.0 and wp.isfinite(far)
    for c in range(features.shape[1]):
        usable = usable and wp.isfinite(features[i, c])
    if usable:
        reach[i] = reach_of(splats, i, far, flat)
        rows = rows_reached(splats, i, reach[i], grid)
        for row in range(rows[0], rows[1]):
            columns = columns_reached(splats, i, reach[i], row, grid, flat)
            counts[i] = counts[i] + wp.max(columns[1] - columns[0], 0)


@wp.kernel
def list_tiles(
    first: wp.int32,
    splats: wp.array2d[wp.float32],
    per_view: wp.int32,
    grid: wp.vec2i,
    flat: wp.bool,
    reach: wp.array[wp.vec3],
    first_entries: wp.array[wp.int32],
    keys: wp.array[wp.int64],
    owners: wp.array[wp.int32],
) -> None:
    """The entries of a splat with their keys: the tile, then the depth, whose bits order as integers do."""
    i = first + wp.tid()
    entry = first_entries[i]
    if entry == first_entries[i + 1]:
        return
    depth = wp.int64(wp.cast(splats[i, 8], wp.int32))
    rows = rows_reached(splats, i, reach[i], grid)
    for row in range(rows[0], rows[1]):
        columns = columns_reached(splats, i, reach[i], row, grid, flat)
        for column in range(columns[0], columns[1]):
            tile = ((i / per_view) * grid[0] + row) * grid[1] + column
            keys[entry] = (wp.int64(tile) << wp.int64(32)) | depth
            owners[entry] = i
            entry += 1

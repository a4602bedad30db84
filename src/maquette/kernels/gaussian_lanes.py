"""What the kernels of Gaussian splatting do to a row of pixels at once: vectors of lanes, on a GPU of one.

Loops over lanes are short and without calls or branches, so that the compiler for CPUs turns each into a few
vector instructions.
"""

# mypy: disable-error-code="index, misc, operator"
# (bodies of kernels are Warp's language)

from typing import Any

import warp as wp

from maquette.kernels.gaussian_tiles import FAINTEST, SIDE, band
from maquette.kernels.launch import MODULE_OPTIONS

wp.set_module_options(MODULE_OPTIONS)

DENSEST = wp.constant(0.99)
"""Largest opacity of a splat in a pixel, so that the backward pass can divide by what it lets pass."""
DARK = wp.constant(1.0e-4)
"""A pixel is done when less than this of the light is left."""
FEATURES = wp.constant(13)
"""Where features begin in a row of a table of splats, after the centre (2), frame (4), slant (2), depth,
opacity and reach (3)."""
LINE = 16
"""Rows are padded to lines of memory of so many numbers."""
FARTHEST = wp.constant(1.0e10)
"""Stands for how far away the plane of a flat splat is met behind the camera."""


@wp.struct
class Block:
    """The part of a tile that a thread owns."""

    tile: wp.int32
    view: wp.int32
    top: wp.int32
    """First row of the tile that belongs to it."""
    rows: wp.int32
    """Number of rows."""
    run: wp.int32
    """Which run of lanes in a row."""
    x: wp.int32
    """Column of its first lane in the picture."""
    y: wp.int32
    """Row of the tile's first row in the picture."""


@wp.func
def block_of(index: wp.int32, rows: wp.int32, lanes: wp.int32, grid: wp.vec2i) -> Block:
    """Block `index` of pictures of (rows, columns) tiles."""
    runs = SIDE / lanes
    parts = runs * (SIDE / rows)
    block = Block()
    block.tile = index / parts
    part = index - block.tile * parts
    block.top = (part / runs) * rows
    block.rows = rows
    block.run = part % runs
    block.view = block.tile / (grid[0] * grid[1])
    place = block.tile % (grid[0] * grid[1])
    block.x = (place % grid[1]) * SIDE + block.run * lanes
    block.y = (place / grid[1]) * SIDE
    return block


@wp.func
def read_row(
    picture: wp.array4d[wp.float32], block: Block, row: wp.int32, channel: wp.int32, row_like: Any
) -> Any:
    """A row of a block, zero beyond the edges of the picture."""
    result = type(row_like)()
    if block.y + row < picture.shape[1]:
        for k in range(len(row_like)):
            if block.x + k < picture.shape[2]:
                result[k] = picture[block.view, block.y + row, block.x + k, channel]
    return result


@wp.func
def write_row(
    picture: wp.array4d[wp.float32], block: Block, row: wp.int32, channel: wp.int32, value: Any
) -> None:
    """Write a row of a block, as far as it is in the picture."""
    if block.y + row < picture.shape[1]:
        for k in range(len(value)):
            if block.x + k < picture.shape[2]:
                picture[block.view, block.y + row, block.x + k, channel] = value[k]


@wp.func
def inside(picture: wp.array4d[wp.float32], block: Block, row: wp.int32, row_like: Any) -> Any:
    """One for the pixels of a row that are in the picture, else zero."""
    result = type(row_like)()
    for k in range(len(row_like)):
        if block.y + row < picture.shape[1] and block.x + k < picture.shape[2]:
            result[k] = 1.0
    return result


@wp.struct
class Splat:
    """A Gaussian on the picture."""

    centre: wp.vec2
    frame: wp.vec4
    slant: wp.vec2
    depth: wp.float32
    opacity: wp.float32
    reach: wp.vec3
    """See `gaussian_tiles.band`."""


@wp.func
def splat_at(splats: wp.array2d[wp.float32], i: wp.int32) -> Splat:
    """Row `i` of a table, see FEATURES."""
    splat = Splat()
    splat.centre = wp.vec2(splats[i, 0], splats[i, 1])
    splat.frame = wp.vec4(splats[i, 2], splats[i, 3], splats[i, 4], splats[i, 5])
    splat.slant = wp.vec2(splats[i, 6], splats[i, 7])
    splat.depth = splats[i, 8]
    splat.opacity = splats[i, 9]
    splat.reach = wp.vec3(splats[i, 10], splats[i, 11], splats[i, 12])
    return splat


@wp.func
def rows_of(block: Block, splat: Splat, lanes: wp.int32, flat: wp.bool) -> wp.vec2i:
    """First row and end of the rows of a block that a splat reaches."""
    reach = splat.reach
    left = wp.float32(block.x) + 0.5 - splat.centre[0]
    extent = wp.vec2(-reach[1], reach[1])
    if not flat:
        extent = band(reach[1], reach[0], reach[2], left, left + wp.float32(lanes - 1))
    below = splat.centre[1] - wp.float32(block.y) - 0.5
    low = wp.clamp(wp.ceil(below + extent[0]), 0.0, wp.float32(SIDE))
    high = wp.clamp(wp.floor(below + extent[1]) + 1.0, 0.0, wp.float32(SIDE))
    return wp.vec2i(wp.max(wp.int32(low), block.top), wp.min(wp.int32(high), block.top + block.rows))


@wp.func
def exponential(x: wp.float32) -> wp.float32:
    """exp(x), x <= 0, without a call, so that loops over lanes become vector instructions (2e-7 relative)."""
    y = wp.max(x, -80.0) * 1.4426950408889634
    whole = wp.floor(y + 0.5)
    f = y - whole
    series = 0.0096181291 + f * (0.0013333558 + f * 0.00015403530)
    series = 1.0 + f * (0.6931471806 + f * (0.2402265070 + f * (0.0555041087 + f * series)))
    return series * wp.cast((wp.int32(whole) + 127) << 23, wp.float32)


@wp.func
def falloff(rho: Any) -> Any:
    """exp(-rho / 2)."""
    result = type(rho)()
    for k in range(len(rho)):
        result[k] = exponential(-0.5 * rho[k])
    return result


@wp.func
def squares(frame: wp.vec4, dx: Any, dy: Any) -> Any:
    """|frame d|^2 along a row."""
    u = frame[0] * dx + frame[1] * dy
    v = frame[2] * dx + frame[3] * dy
    return wp.cw_mul(u, u) + wp.cw_mul(v, v)


@wp.func
def nearness(slant: wp.vec2, dx: Any, dy: Any) -> Any:
    """Depth of a flat splat's centre over its depth at each pixel; huge where the ray misses its plane."""
    result = slant[0] * dx + slant[1] * dy
    for k in range(len(dx)):
        h = 1.0 + result[k]
        result[k] = wp.where(h > 0.0, 1.0 / h, FARTHEST)
    return result


@wp.func
def not_above(a: Any, b: Any) -> Any:
    """One where a <= b, else zero."""
    result = type(a)()
    for k in range(len(a)):
        result[k] = wp.where(a[k] <= b[k], 1.0, 0.0)
    return result


@wp.func
def counting(alpha: Any, light: Any) -> Any:
    """The opacities that change their pixel: not too faint, and the pixel not done."""
    result = type(alpha)()
    for k in range(len(alpha)):
        result[k] = wp.where(alpha[k] >= FAINTEST and light[k] >= DARK, wp.min(alpha[k], DENSEST), 0.0)
    return result


@wp.func
def counted(alpha: Any, place: wp.int32, last: Any) -> Any:
    """The same, known from the last place that changed each pixel."""
    result = type(alpha)()
    for k in range(len(alpha)):
        result[k] = wp.where(alpha[k] >= FAINTEST and place <= last[k], wp.min(alpha[k], DENSEST), 0.0)
    return result


@wp.func
def remember(last: Any, alpha: Any, place: wp.int32) -> Any:
    """The last place that changed each pixel."""
    result = type(last)()
    for k in range(len(last)):
        result[k] = wp.where(alpha[k] > 0.0, place, last[k])
    return result


@wp.func
def unless_densest(value: Any, alpha: Any) -> Any:
    """The gradient `value` of the smaller of alpha and DENSEST."""
    result = type(value)()
    for k in range(len(value)):
        result[k] = wp.where(alpha[k] > DENSEST, 0.0, value[k])
    return result


@wp.func
def numbers(row_like: Any) -> Any:
    """0, 1, 2 ..."""
    result = type(row_like)()
    for k in range(len(row_like)):
        result[k] = wp.float32(k)
    return result


@wp.func
def offsets(block: Block, centre: wp.vec2, lane: Any, ones: Any) -> Any:
    """How far right of a centre each pixel of a row is."""
    return lane + (wp.float32(block.x) + 0.5 - centre[0]) * ones


@wp.func
def offset(block: Block, centre: wp.vec2, row: wp.int32) -> wp.float32:
    """How far below a centre a row is."""
    return wp.float32(block.y + row) + 0.5 - centre[1]


@wp.func
def total(lanes: Any) -> wp.float32:
    """Sum of the lanes."""
    result = wp.float32(0.0)
    for k in range(len(lanes)):
        result += lanes[k]
    return result

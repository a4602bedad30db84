"""The Warp kernels that blend splats into tiles; `gaussian_composite.py` launches them.

A thread owns a block of a tile, some rows of `lanes` pixels each, and walks the list of the tile. On a CPU
the block is the whole tile and a row of it one vector of 16 lanes, which the compiler turns into the
processor's vector instructions; on a GPU it is one pixel. Pictures are held as planes, [tile, channel, row,
lane].

The offset of a pixel from a splat's centre, in units of the splat, is s = frame d / (1 + slant d), see
`gaussian_projection_kernels.py`; alpha = min(opacity exp(-|s|^2 / 2), DENSEST) (Kerbl et al. 2023, section
4), and for a flat splat |s|^2 is at most BLUR |d|^2 (Huang et al. 2024, eq. 11).
"""

# mypy: disable-error-code="index, misc, operator"
# (bodies of kernels are Warp's language)

from functools import lru_cache
from typing import Any

import warp as wp

from maquette.kernels.gaussian_tiles import BLUR, FAINTEST, SIDE
from maquette.kernels.launch import MODULE_OPTIONS

wp.set_module_options(MODULE_OPTIONS)

DENSEST = wp.constant(0.99)
"""Largest opacity of a splat in a pixel, so that the backward pass can divide by what it lets pass."""
DARK = wp.constant(1.0e-4)
"""A pixel is done when less than this of the light is left."""
PATIENCE = wp.constant(8)
"""After so many splats a block looks whether all its pixels are done."""
FARTHEST = wp.constant(1.0e10)
"""Stands for how far away the plane of a flat splat is met behind the camera."""

FIELDS = 10
"""Numbers of a splat: centre (2), frame (4), slant (2), depth, opacity."""


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
def total(lanes: Any) -> wp.float32:
    """Sum of the lanes."""
    result = wp.float32(0.0)
    for k in range(len(lanes)):
        result += lanes[k]
    return result


@wp.struct
class Block:
    """The part of a tile that a thread owns."""

    tile: wp.int32
    top: wp.int32
    """First row."""
    rows: wp.int32
    """Number of rows."""
    run: wp.int32
    """Which run of lanes in a row."""
    origin: wp.vec2
    """Pixel coordinates of the centre of the first pixel of the tile's row zero, at this run."""


@wp.func
def block_of(index: wp.int32, rows: wp.int32, lanes: wp.int32, grid: wp.vec2i) -> Block:
    """Block `index` of a grid of (rows, columns) tiles."""
    runs = SIDE / lanes
    parts = runs * (SIDE / rows)
    block = Block()
    block.tile = index / parts
    part = index - block.tile * parts
    block.top = (part / runs) * rows
    block.rows = rows
    block.run = part % runs
    place = block.tile % (grid[0] * grid[1])
    block.origin = wp.vec2(
        wp.float32((place % grid[1]) * SIDE + block.run * lanes) + 0.5,
        wp.float32((place / grid[1]) * SIDE) + 0.5,
    )
    return block


@wp.func
def rows_of(block: Block, y: wp.float32, half: wp.float32) -> wp.vec2i:
    """First row and end of the rows of a block that a splat at height `y` reaches."""
    low = wp.clamp(wp.ceil(y - half - block.origin[1]), 0.0, wp.float32(SIDE))
    high = wp.clamp(wp.floor(y + half - block.origin[1]) + 1.0, 0.0, wp.float32(SIDE))
    return wp.vec2i(wp.max(wp.int32(low), block.top), wp.min(wp.int32(high), block.top + block.rows))


@lru_cache
def blend_kernel(lanes: int, flat: bool) -> Any:
    """Kernel: pictures from splats, front to back."""
    vec = wp.types.vector(lanes, wp.float32)
    ints = wp.types.vector(lanes, wp.int32)

    @wp.kernel(enable_backward=False, module="unique", module_options={"max_unroll": lanes})
    def blend(
        first: wp.int32,
        rows: wp.int32,
        grid: wp.vec2i,
        starts: wp.array[wp.int32],
        order: wp.array[wp.int32],
        reach: wp.array[wp.vec2],
        splats: wp.array2d[wp.float32],
        features: wp.array2d[wp.float32],
        color: wp.array4d[vec],
        depth: wp.array3d[vec],
        light: wp.array3d[vec],
        last: wp.array3d[ints],
    ) -> None:
        block = block_of(first + wp.tid(), rows, lanes, grid)
        tile, run = block.tile, block.run
        place = starts[tile]
        end = starts[tile + 1]
        while place < end:
            i = order[place]
            x, y = block.origin[0] - splats[i, 0], splats[i, 1]
            f00, f01, f10, f11 = splats[i, 2], splats[i, 3], splats[i, 4], splats[i, 5]
            e0, e1, z, opacity = splats[i, 6], splats[i, 7], splats[i, 8], splats[i, 9]
            span = rows_of(block, y, reach[i][1])
            for row in range(span[0], span[1]):
                dy = block.origin[1] + wp.float32(row) - y
                passing = light[tile, row, run]
                seen = last[tile, row, run]
                weight = vec()
                far = vec()
                for k in range(lanes):
                    dx = x + wp.float32(k)
                    u, v = f00 * dx + f01 * dy, f10 * dx + f11 * dy
                    rho = u * u + v * v
                    if wp.static(flat):
                        h = 1.0 + e0 * dx + e1 * dy
                        nearer = wp.where(h > 0.0, 1.0 / h, FARTHEST)
                        rho = rho * nearer * nearer
                        blur = BLUR * (dx * dx + dy * dy)
                        far[k] = wp.where(rho <= blur, z * nearer, z)
                        rho = wp.min(rho, blur)
                    alpha = wp.min(opacity * exponential(-0.5 * rho), DENSEST)
                    alpha = wp.where(alpha >= FAINTEST and passing[k] >= DARK, alpha, 0.0)
                    weight[k] = alpha * passing[k]
                    seen[k] = wp.where(alpha > 0.0, place, seen[k])
                light[tile, row, run] = passing - weight
                last[tile, row, run] = seen
                if wp.static(flat):
                    depth[tile, row, run] = depth[tile, row, run] + wp.cw_mul(weight, far)
                else:
                    depth[tile, row, run] = depth[tile, row, run] + z * weight
                for c in range(features.shape[1]):
                    color[tile, c, row, run] = color[tile, c, row, run] + features[i, c] * weight
            place += 1
            if place % PATIENCE == 0:
                brightest = vec()
                for row in range(block.top, block.top + block.rows):
                    brightest = wp.max(brightest, light[tile, row, run])
                if wp.max(brightest) < DARK:
                    place = end

    return blend


@lru_cache
def blend_backward_kernel(lanes: int, flat: bool) -> Any:
    """Kernel: gradients to splats and features of each entry, back to front."""
    vec = wp.types.vector(lanes, wp.float32)
    ints = wp.types.vector(lanes, wp.int32)

    @wp.kernel(enable_backward=False, module="unique", module_options={"max_unroll": lanes})
    def blend_backward(
        first: wp.int32,
        rows: wp.int32,
        grid: wp.vec2i,
        starts: wp.array[wp.int32],
        order: wp.array[wp.int32],
        entries: wp.array[wp.int32],
        reach: wp.array[wp.vec2],
        splats: wp.array2d[wp.float32],
        features: wp.array2d[wp.float32],
        last: wp.array3d[ints],
        grad_color: wp.array4d[vec],
        grad_depth: wp.array3d[vec],
        light: wp.array3d[vec],
        behind: wp.array3d[vec],
        weights: wp.array3d[vec],
        to_splats: wp.array2d[wp.float32],
        to_features: wp.array2d[wp.float32],
    ) -> None:
        block = block_of(first + wp.tid(), rows, lanes, grid)
        tile, run = block.tile, block.run
        latest = ints()
        for k in range(lanes):
            latest[k] = -1
        for row in range(block.top, block.top + block.rows):
            latest = wp.max(latest, last[tile, row, run])
        place = wp.max(latest)
        while place >= starts[tile]:
            i = order[place]
            x, y = block.origin[0] - splats[i, 0], splats[i, 1]
            f00, f01, f10, f11 = splats[i, 2], splats[i, 3], splats[i, 4], splats[i, 5]
            e0, e1, z, opacity = splats[i, 6], splats[i, 7], splats[i, 8], splats[i, 9]
            span = rows_of(block, y, reach[i][1])
            pull, depths = vec(), vec()
            pull_u, pull_ux, pull_uy = vec(), vec(), vec()
            pull_v, pull_vx, pull_vy = vec(), vec(), vec()
            pull_h, pull_hx, pull_hy, pull_bx, pull_by = vec(), vec(), vec(), vec(), vec()
            for row in range(span[0], span[1]):
                dy = block.origin[1] + wp.float32(row) - y
                passed = light[tile, row, run]
                hidden = behind[tile, row, run]
                seen = last[tile, row, run]
                along = grad_depth[tile, row, run]
                value = vec()
                for c in range(features.shape[1]):
                    value += features[i, c] * grad_color[tile, c, row, run]
                weight, dxs, to_u, to_v, to_h, to_b = vec(), vec(), vec(), vec(), vec(), vec()
                for k in range(lanes):
                    dx = x + wp.float32(k)
                    u, v = f00 * dx + f01 * dy, f10 * dx + f11 * dy
                    nearer = wp.float32(1.0)
                    in_plane = wp.float32(1.0)
                    if wp.static(flat):
                        h = 1.0 + e0 * dx + e1 * dy
                        nearer = wp.where(h > 0.0, 1.0 / h, FARTHEST)
                        u, v = u * nearer, v * nearer
                    rho = u * u + v * v
                    if wp.static(flat):
                        blur = BLUR * (dx * dx + dy * dy)
                        in_plane = wp.where(rho <= blur, 1.0, 0.0)
                        nearer = wp.where(rho <= blur, nearer, 1.0)
                        rho = wp.min(rho, blur)
                    full = opacity * exponential(-0.5 * rho)
                    alpha = wp.where(full >= FAINTEST and place <= seen[k], wp.min(full, DENSEST), 0.0)
                    opened = 1.0 / (1.0 - alpha)
                    passing = passed[k] * opened
                    gain = value[k] + along[k] * z * nearer
                    to_alpha = passing * gain - hidden[k] * opened
                    weight[k] = alpha * passing
                    hidden[k] = hidden[k] + weight[k] * gain
                    passed[k] = passing
                    depths[k] = depths[k] + weight[k] * along[k] * nearer
                    to_rho = wp.where(full > DENSEST, 0.0, -0.5 * to_alpha * alpha)
                    pull[k] = pull[k] + to_rho
                    dxs[k] = dx
                    to_u[k] = 2.0 * to_rho * in_plane * u * nearer
                    to_v[k] = 2.0 * to_rho * in_plane * v * nearer
                    if wp.static(flat):
                        to_b[k] = 2.0 * BLUR * to_rho * (1.0 - in_plane)
                        drop = 2.0 * to_rho * rho + weight[k] * along[k] * z * nearer
                        to_h[k] = -drop * nearer * in_plane
                light[tile, row, run] = passed
                behind[tile, row, run] = hidden
                weights[tile, row, run] = weight
                pull_u += to_u
                pull_ux += wp.cw_mul(to_u, dxs)
                pull_uy += dy * to_u
                pull_v += to_v
                pull_vx += wp.cw_mul(to_v, dxs)
                pull_vy += dy * to_v
                if wp.static(flat):
                    pull_h += to_h
                    pull_hx += wp.cw_mul(to_h, dxs)
                    pull_hy += dy * to_h
                    pull_bx += wp.cw_mul(to_b, dxs)
                    pull_by += dy * to_b
            e = entries[place]
            if span[0] < span[1]:
                in_u, in_v = total(pull_u), total(pull_v)
                to_dx, to_dy = f00 * in_u + f10 * in_v, f01 * in_u + f11 * in_v
                if wp.static(flat):
                    in_h = total(pull_h)
                    to_dx += e0 * in_h + total(pull_bx)
                    to_dy += e1 * in_h + total(pull_by)
                    wp.atomic_add(to_splats, e, 6, total(pull_hx))
                    wp.atomic_add(to_splats, e, 7, total(pull_hy))
                wp.atomic_add(to_splats, e, 0, -to_dx)
                wp.atomic_add(to_splats, e, 1, -to_dy)
                wp.atomic_add(to_splats, e, 2, total(pull_ux))
                wp.atomic_add(to_splats, e, 3, total(pull_uy))
                wp.atomic_add(to_splats, e, 4, total(pull_vx))
                wp.atomic_add(to_splats, e, 5, total(pull_vy))
                wp.atomic_add(to_splats, e, 8, total(depths))
                wp.atomic_add(to_splats, e, 9, -2.0 * total(pull) / opacity)
            for c in range(features.shape[1]):
                share = vec()
                for row in range(span[0], span[1]):
                    share += wp.cw_mul(weights[tile, row, run], grad_color[tile, c, row, run])
                wp.atomic_add(to_features, e, c, total(share))
            place -= 1

    return blend_backward


@wp.kernel
def sum_entries(
    first: wp.int32,
    first_entries: wp.array[wp.int32],
    by_entry: wp.array2d[wp.float32],
    sums: wp.array2d[wp.float32],
) -> None:
    """The gradient of a splat: the sum over its entries."""
    i = first + wp.tid()
    for entry in range(first_entries[i], first_entries[i + 1]):
        for c in range(sums.shape[1]):
            sums[i, c] = sums[i, c] + by_entry[entry, c]

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

from maquette.kernels.gaussian_lanes import (
    DARK,
    FEATURES,
    Block,
    Splat,
    block_of,
    counted,
    counting,
    falloff,
    inside,
    nearness,
    not_above,
    numbers,
    offset,
    offsets,
    read_row,
    remember,
    rows_of,
    splat_at,
    squares,
    total,
    unless_densest,
    write_row,
)
from maquette.kernels.gaussian_tiles import BLUR
from maquette.kernels.launch import MODULE_OPTIONS

wp.set_module_options(MODULE_OPTIONS)

vec16 = wp.types.vector(16, wp.float32)

PATIENCE = wp.constant(8)
"""After so many splats a block looks whether all its pixels are done."""
SOLID_SUMS, FLAT_SUMS = 4, 9
"""How many sums over pixels the gradient of a splat takes, those of its features not counted.

0, 1, 2: of the gradient to |frame d|^2, times 1, y, y^2; 3: to depth; only of a flat one 4: of that to |s|^2;
5, 6: to 1 + slant d, times 1, y; 7, 8: to BLUR |d|^2, times 1, y.
"""


@wp.func
def brightest(light: wp.array3d[Any], block: Block) -> wp.float32:
    """Most light that is left in a pixel of the block."""
    most = light[block.tile, block.top, block.run]
    for row in range(block.top + 1, block.top + block.rows):
        most = wp.max(most, light[block.tile, row, block.run])
    return wp.max(most)


@wp.func
def latest(last: wp.array3d[Any], block: Block) -> wp.int32:
    """The last place that changed a pixel of the block."""
    most = last[block.tile, block.top, block.run]
    for row in range(block.top + 1, block.top + block.rows):
        most = wp.max(most, last[block.tile, row, block.run])
    return wp.max(most)


@wp.func
def accumulate(sums: wp.array2d[Any], own: wp.int32, which: wp.int32, value: Any) -> None:
    """Add to one of a block's own sums."""
    sums[own, which] = sums[own, which] + value


@wp.func
def accumulate_moments(
    sums: wp.array2d[Any], own: wp.int32, which: wp.int32, value: Any, height: wp.float32
) -> None:
    """Add to two of the sums, to the second with the height."""
    accumulate(sums, own, which, value)
    accumulate(sums, own, which + 1, height * value)


@wp.func
def take_gradients(
    block: Block, channels: wp.int32, light: wp.array3d[Any], grad_color: wp.array4d[wp.float32],
    grad_depth: wp.array4d[wp.float32], grad_light: wp.array4d[wp.float32], planes: wp.array4d[Any],
    depth: wp.array3d[Any], behind: wp.array3d[Any],
) -> None:  # fmt: skip
    """The gradients of a block's pixels, from pictures to planes."""
    for row in range(block.top, block.top + block.rows):
        left = light[block.tile, row, block.run]
        behind[block.tile, row, block.run] = wp.cw_mul(left, read_row(grad_light, block, row, 0, left))
        depth[block.tile, row, block.run] = read_row(grad_depth, block, row, 0, left)
        for c in range(channels):
            planes[block.tile, c, row, block.run] = read_row(grad_color, block, row, c, left)


@wp.func
def add(out: wp.array2d[wp.float32], row: wp.int32, column: wp.int32, value: wp.float32) -> None:
    """Add what is not zero: on a GPU several blocks share a row, and most leave it as it is."""
    if value != 0.0:
        wp.atomic_add(out, row, column, value)


@wp.func
def add_frame(
    out: wp.array2d[wp.float32], place: wp.int32, splat: Splat, dx: Any, m: Any, my: Any, myy: wp.float32
) -> None:
    """Gradients to centre and frame from the moments of that of |frame d|^2, summed over rows."""
    f = splat.frame
    mx = wp.cw_mul(m, dx)
    sx, sy = total(mx), total(my)
    sxx, sxy = total(wp.cw_mul(mx, dx)), total(wp.cw_mul(my, dx))
    u, v = f[0] * sx + f[1] * sy, f[2] * sx + f[3] * sy
    add(out, place, 0, -2.0 * (f[0] * u + f[2] * v))
    add(out, place, 1, -2.0 * (f[1] * u + f[3] * v))
    add(out, place, 2, 2.0 * (f[0] * sxx + f[1] * sxy))
    add(out, place, 3, 2.0 * (f[0] * sxy + f[1] * myy))
    add(out, place, 4, 2.0 * (f[2] * sxx + f[3] * sxy))
    add(out, place, 5, 2.0 * (f[2] * sxy + f[3] * myy))


@wp.func
def add_splat(
    out: wp.array2d[wp.float32], place: wp.int32, splat: Splat, dx: Any, sums: wp.array2d[Any], own: wp.int32,
    flat: wp.bool,
) -> None:  # fmt: skip
    """Gradients to a splat from a block's sums."""
    add_frame(out, place, splat, dx, sums[own, 0], sums[own, 1], total(sums[own, 2]))
    add(out, place, 8, total(sums[own, 3]) / splat.depth)
    to_rho = total(sums[own, 0])
    if flat:
        to_rho = total(sums[own, 4])
        in_h = total(sums[own, 5])
        add(out, place, 0, -splat.slant[0] * in_h - 2.0 * BLUR * total(wp.cw_mul(sums[own, 7], dx)))
        add(out, place, 1, -splat.slant[1] * in_h - 2.0 * BLUR * total(sums[own, 8]))
        add(out, place, 6, total(wp.cw_mul(sums[own, 5], dx)))
        add(out, place, 7, total(sums[own, 6]))
    add(out, place, 9, -2.0 * to_rho / splat.opacity)


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
        table: wp.array2d[wp.float32],
        channels: wp.int32,
        planes: wp.array4d[vec],
        depth: wp.array3d[vec],
        light: wp.array3d[vec],
        last: wp.array3d[ints],
        out_color: wp.array4d[wp.float32],
        out_depth: wp.array4d[wp.float32],
        out_light: wp.array4d[wp.float32],
    ) -> None:
        block = block_of(first + wp.tid(), rows, lanes, grid)
        tile, run = block.tile, block.run
        ones = vec(1.0)
        lane = numbers(ones)
        for row in range(block.top, block.top + rows):
            light[tile, row, run] = inside(out_light, block, row, ones)
            depth[tile, row, run] = vec()
            last[tile, row, run] = ints() - ints(1)
            for c in range(channels):
                planes[tile, c, row, run] = vec()
        place = starts[tile]
        end = starts[tile + 1]
        while place < end:
            i = order[place]
            splat = splat_at(table, i)
            span = rows_of(block, splat, lanes, flat)
            dx = offsets(block, splat.centre, lane, ones)
            for row in range(span[0], span[1]):
                dy = offset(block, splat.centre, row) * ones
                rho = squares(splat.frame, dx, dy)
                far = splat.depth * ones
                if wp.static(flat):
                    nearer = nearness(splat.slant, dx, dy)
                    plane = wp.cw_mul(rho, wp.cw_mul(nearer, nearer))
                    blur = BLUR * (wp.cw_mul(dx, dx) + wp.cw_mul(dy, dy))
                    rho = wp.min(plane, blur)
                    far += splat.depth * wp.cw_mul(not_above(plane, blur), nearer - ones)
                alpha = counting(splat.opacity * falloff(rho), light[tile, row, run])
                weight = wp.cw_mul(alpha, light[tile, row, run])
                light[tile, row, run] = light[tile, row, run] - weight
                last[tile, row, run] = remember(last[tile, row, run], alpha, place)
                depth[tile, row, run] = depth[tile, row, run] + wp.cw_mul(weight, far)
                for c in range(channels):
                    planes[tile, c, row, run] = planes[tile, c, row, run] + table[i, FEATURES + c] * weight
            place += 1
            if place % PATIENCE == 0 and brightest(light, block) < DARK:
                place = end
        for row in range(block.top, block.top + rows):
            write_row(out_light, block, row, 0, light[tile, row, run])
            write_row(out_depth, block, row, 0, depth[tile, row, run])
            for c in range(channels):
                write_row(out_color, block, row, c, planes[tile, c, row, run])

    return blend


@lru_cache
def blend_backward_kernel(lanes: int, flat: bool) -> Any:
    """Kernel: gradients to the splat and the features of each place in the lists, back to front.

    `light` goes from what is left in the end to what a splat receives, `behind` is the part of its gradient
    that comes from what it hides, `planes` and `depth` are the gradients of the block, `sums` its sums over
    pixels; they are in memory since the compiler makes vector code only of what is stored.
    """
    vec = wp.types.vector(lanes, wp.float32)
    ints = wp.types.vector(lanes, wp.int32)
    count = FLAT_SUMS if flat else SOLID_SUMS

    @wp.kernel(enable_backward=False, module="unique", module_options={"max_unroll": lanes})
    def blend_backward(
        first: wp.int32,
        rows: wp.int32,
        grid: wp.vec2i,
        starts: wp.array[wp.int32],
        order: wp.array[wp.int32],
        table: wp.array2d[wp.float32],
        channels: wp.int32,
        last: wp.array3d[ints],
        grad_color: wp.array4d[wp.float32],
        grad_depth: wp.array4d[wp.float32],
        grad_light: wp.array4d[wp.float32],
        planes: wp.array4d[vec],
        depth: wp.array3d[vec],
        light: wp.array3d[vec],
        behind: wp.array3d[vec],
        sums: wp.array2d[vec],
        out: wp.array2d[wp.float32],
    ) -> None:
        own = first + wp.tid()
        block = block_of(own, rows, lanes, grid)
        tile, run = block.tile, block.run
        ones = vec(1.0)
        lane = numbers(ones)
        take_gradients(block, channels, light, grad_color, grad_depth, grad_light, planes, depth, behind)
        place = latest(last, block)
        while place >= starts[tile]:
            i = order[place]
            splat = splat_at(table, i)
            span = rows_of(block, splat, lanes, flat)
            dx = offsets(block, splat.centre, lane, ones)
            for c in range(sums.shape[1]):
                sums[own, c] = vec()
            for row in range(span[0], span[1]):
                height = offset(block, splat.centre, row)
                dy = height * ones
                rho = squares(splat.frame, dx, dy)
                along = splat.depth * depth[tile, row, run]
                if wp.static(flat):
                    nearer = nearness(splat.slant, dx, dy)
                    plane = wp.cw_mul(rho, wp.cw_mul(nearer, nearer))
                    blur = BLUR * (wp.cw_mul(dx, dx) + wp.cw_mul(dy, dy))
                    rho = wp.min(plane, blur)
                    in_plane = not_above(plane, blur)
                    nearer = wp.cw_mul(in_plane, nearer)
                    along = wp.cw_mul(along, nearer + ones - in_plane)
                gain = vec() + along
                for c in range(channels):
                    gain += table[i, FEATURES + c] * planes[tile, c, row, run]
                full = splat.opacity * falloff(rho)
                alpha = counted(full, place, last[tile, row, run])
                opened = wp.cw_div(ones, ones - alpha)
                passing = wp.cw_mul(light[tile, row, run], opened)
                weight = wp.cw_mul(alpha, passing)
                to_alpha = wp.cw_mul(passing, gain) - wp.cw_mul(behind[tile, row, run], opened)
                to_rho = unless_densest(-0.5 * wp.cw_mul(to_alpha, alpha), full)
                light[tile, row, run] = passing
                behind[tile, row, run] = behind[tile, row, run] + wp.cw_mul(weight, gain)
                m = to_rho
                if wp.static(flat):
                    m = wp.cw_mul(to_rho, wp.cw_mul(nearer, nearer))
                    in_h = -wp.cw_mul(nearer, 2.0 * wp.cw_mul(to_rho, rho) + wp.cw_mul(weight, along))
                    in_b = to_rho - wp.cw_mul(to_rho, in_plane)
                    accumulate(sums, own, 4, to_rho)
                    accumulate_moments(sums, own, 5, in_h, height)
                    accumulate_moments(sums, own, 7, in_b, height)
                accumulate_moments(sums, own, 0, m, height)
                accumulate(sums, own, 2, (height * height) * m)
                accumulate(sums, own, 3, wp.cw_mul(weight, along))
                for c in range(channels):
                    accumulate(sums, own, count + c, wp.cw_mul(weight, planes[tile, c, row, run]))
            if span[0] < span[1]:
                add_splat(out, place, splat, dx, sums, own, flat)
                for c in range(channels):
                    add(out, place, FEATURES + c, total(sums[own, count + c]))
            place -= 1

    return blend_backward


@wp.kernel
def sum_entries(
    first: wp.int32,
    first_entries: wp.array[wp.int32],
    places: wp.array[wp.int32],
    by_place: wp.array2d[vec16],
    sums: wp.array2d[vec16],
) -> None:
    """The gradient of a splat: the sum over its entries, a line of memory at a time."""
    i = first + wp.tid()
    for c in range(sums.shape[1]):
        line = vec16()
        for entry in range(first_entries[i], first_entries[i + 1]):
            line += by_place[places[entry], c]
        sums[i, c] = line

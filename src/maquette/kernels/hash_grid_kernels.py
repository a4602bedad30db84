"""The Warp kernels of the hash grid; `hash_grid.py` launches them.

Every kernel walks one level of the table over a run of points, so that the level stays in the cache, and
reads `vec`, the row of F features, as one value. Threads are numbered (level, run of points). Compiled for
the number of features in use only. `directional` replaces the trilinear weights by their derivative along a
vector per point.

No `wp.static` on the variable of a loop: Warp resolves it only while compiling, so the hash of a second
kernel that calls the same function would depend on whether the first one came from the cache.
"""

# mypy: disable-error-code="index, misc"
# (bodies of kernels are Warp's language: vectors made by wp.types.vector and wp.tid() of two axes)

from functools import lru_cache
from typing import Any

import warp as wp

from maquette.kernels.launch import MODULE_OPTIONS

wp.set_module_options(MODULE_OPTIONS)

PRIME_Y = wp.constant(wp.uint32(2654435761))
PRIME_Z = wp.constant(wp.uint32(805459861))

vec8f = wp.types.vector(8, wp.float32)
vec8i = wp.types.vector(8, wp.int32)


@wp.struct
class Run:
    """Thread (i, j) of a launch does level `level + i` and `length` points from `first + j length`."""

    level: wp.int32
    first: wp.int32
    last: wp.int32
    length: wp.int32


@wp.func
def corner_rows(cell: wp.vec3i, level: wp.vec4i) -> vec8i:
    """Rows of the eight corners, x fastest: the index where the level is dense, else the hash of eq. 4."""
    dense = level[2] > 0
    side = wp.uint32(level[0] + 1)
    mask = wp.uint32(level[3])
    step_y = wp.where(dense, side, PRIME_Y)
    step_z = wp.where(dense, side * side, PRIME_Z)
    x = wp.uint32(cell[0])
    y = wp.uint32(cell[1]) * step_y
    z = wp.uint32(cell[2]) * step_z
    rows = vec8i()
    for c in range(8):
        a = x + wp.uint32(c & 1)
        b = y + wp.uint32((c >> 1) & 1) * step_y
        d = z + wp.uint32(c >> 2) * step_z
        rows[c] = level[1] + wp.int32(wp.where(dense, a + b + d, (a ^ b ^ d) & mask))
    return rows


@wp.func
def cell_of(position: wp.vec3, level: wp.vec4i) -> wp.vec3i:
    """The cell of a position in units of cells; positions outside belong to the nearest cell."""
    top = level[0] - 1
    return wp.vec3i(
        wp.clamp(wp.int32(position[0]), 0, top),
        wp.clamp(wp.int32(position[1]), 0, top),
        wp.clamp(wp.int32(position[2]), 0, top),
    )


@wp.func
def fraction_of(position: wp.vec3, cell: wp.vec3i) -> wp.vec3:
    """Where in its cell a position lies, in [0, 1]."""
    return wp.vec3(
        wp.clamp(position[0] - wp.float32(cell[0]), 0.0, 1.0),
        wp.clamp(position[1] - wp.float32(cell[1]), 0.0, 1.0),
        wp.clamp(position[2] - wp.float32(cell[2]), 0.0, 1.0),
    )


@wp.func
def slope_scale(position: wp.vec3, level: wp.vec4i) -> wp.vec3:
    """Cells per unit of x, zero along an axis on which the position is outside and the value constant."""
    side = wp.float32(level[0])
    return wp.vec3(
        wp.where(position[0] < 0.0 or position[0] > side, 0.0, side),
        wp.where(position[1] < 0.0 or position[1] > side, 0.0, side),
        wp.where(position[2] < 0.0 or position[2] > side, 0.0, side),
    )


@wp.func
def trilinear(w: wp.vec3, along: wp.vec3) -> vec8f:
    """Trilinear weights of the eight corners; `along` is not used."""
    u = wp.vec3(1.0, 1.0, 1.0) - w
    a = u[1] * u[2]
    b = w[1] * u[2]
    c = u[1] * w[2]
    d = w[1] * w[2]
    return vec8f(u[0] * a, w[0] * a, u[0] * b, w[0] * b, u[0] * c, w[0] * c, u[0] * d, w[0] * d)


@wp.func
def trilinear_along(w: wp.vec3, along: wp.vec3) -> vec8f:
    """Derivative of the trilinear weights along a vector, in units of cells."""
    u = wp.vec3(1.0, 1.0, 1.0) - w
    weights = vec8f()
    for c in range(8):
        fx = wp.where((c & 1) == 1, w[0], u[0])
        fy = wp.where(((c >> 1) & 1) == 1, w[1], u[1])
        fz = wp.where((c >> 2) == 1, w[2], u[2])
        sx = wp.where((c & 1) == 1, along[0], -along[0])
        sy = wp.where(((c >> 1) & 1) == 1, along[1], -along[1])
        sz = wp.where((c >> 2) == 1, along[2], -along[2])
        weights[c] = sx * fy * fz + sy * fx * fz + sz * fx * fy
    return weights


@wp.func
def _bilinear(
    a: wp.float32, b: wp.float32, c: wp.float32, d: wp.float32, s: wp.float32, t: wp.float32
) -> wp.float32:
    return (1.0 - t) * ((1.0 - s) * a + s * b) + t * ((1.0 - s) * c + s * d)


@wp.func
def trilinear_slope(d: vec8f, w: wp.vec3) -> wp.vec3:
    """Gradient of the interpolation of the corner values `d`, in units of cells."""
    return wp.vec3(
        _bilinear(d[1] - d[0], d[3] - d[2], d[5] - d[4], d[7] - d[6], w[1], w[2]),
        _bilinear(d[2] - d[0], d[3] - d[1], d[6] - d[4], d[7] - d[5], w[0], w[2]),
        _bilinear(d[4] - d[0], d[5] - d[1], d[6] - d[2], d[7] - d[3], w[0], w[1]),
    )


@wp.func
def trilinear_curvature(d: vec8f, w: wp.vec3, along: wp.vec3) -> wp.vec3:
    """Hessian of the interpolation of the corner values `d` times a vector (its diagonal is zero)."""
    u = wp.vec3(1.0, 1.0, 1.0) - w
    xy = u[2] * (d[0] - d[1] - d[2] + d[3]) + w[2] * (d[4] - d[5] - d[6] + d[7])
    xz = u[1] * (d[0] - d[1] - d[4] + d[5]) + w[1] * (d[2] - d[3] - d[6] + d[7])
    yz = u[0] * (d[0] - d[2] - d[4] + d[6]) + w[0] * (d[1] - d[3] - d[5] + d[7])
    return wp.vec3(
        xy * along[1] + xz * along[2], xy * along[0] + yz * along[2], xz * along[0] + yz * along[1]
    )


@lru_cache
def gather_kernel(features: int, directional: bool) -> Any:
    """Kernel: out[level, point] = sum over corners of weight times row."""
    vec = wp.types.vector(features, wp.float32)
    weigh = trilinear_along if directional else trilinear

    @wp.kernel(enable_backward=False, module="unique")
    def gather(
        run: Run,
        levels: wp.array[wp.vec4i],
        x: wp.array[wp.vec3],
        along: wp.array[wp.vec3],
        table: wp.array[vec],
        out: wp.array2d[vec],
    ) -> None:
        i, j = wp.tid()
        level = levels[run.level + i]
        begin = run.first + j * run.length
        for n in range(begin, wp.min(begin + run.length, run.last)):
            position = x[n] * wp.float32(level[0])
            cell = cell_of(position, level)
            direction = wp.cw_mul(along[n], slope_scale(position, level))
            weights = weigh(fraction_of(position, cell), direction)
            rows = corner_rows(cell, level)
            total = vec()
            for c in range(8):
                total += weights[c] * table[rows[c]]
            out[run.level + i, n] = total

    return gather


@lru_cache
def scatter_kernel(features: int, directional: bool) -> Any:
    """Kernel: out[row of corner] += weight times incoming[level, point]."""
    vec = wp.types.vector(features, wp.float32)
    weigh = trilinear_along if directional else trilinear

    @wp.kernel(enable_backward=False, module="unique")
    def scatter(
        run: Run,
        levels: wp.array[wp.vec4i],
        x: wp.array[wp.vec3],
        along: wp.array[wp.vec3],
        incoming: wp.array2d[vec],
        out: wp.array[vec],
    ) -> None:
        i, j = wp.tid()
        level = levels[run.level + i]
        begin = run.first + j * run.length
        for n in range(begin, wp.min(begin + run.length, run.last)):
            position = x[n] * wp.float32(level[0])
            cell = cell_of(position, level)
            direction = wp.cw_mul(along[n], slope_scale(position, level))
            weights = weigh(fraction_of(position, cell), direction)
            rows = corner_rows(cell, level)
            value = incoming[run.level + i, n]
            for c in range(8):
                wp.atomic_add(out, rows[c], weights[c] * value)

    return scatter


@lru_cache
def slope_kernel(features: int, directional: bool) -> Any:
    """Kernel: out[point] += gradient of <incoming, encoding>, or its Hessian times `along`."""
    vec = wp.types.vector(features, wp.float32)
    second = directional

    @wp.kernel(enable_backward=False, module="unique")
    def slope(
        run: Run,
        levels: wp.array[wp.vec4i],
        x: wp.array[wp.vec3],
        along: wp.array[wp.vec3],
        table: wp.array[vec],
        incoming: wp.array2d[vec],
        out: wp.array[wp.vec3],
    ) -> None:
        i, j = wp.tid()
        level = levels[run.level + i]
        begin = run.first + j * run.length
        for n in range(begin, wp.min(begin + run.length, run.last)):
            position = x[n] * wp.float32(level[0])
            cell = cell_of(position, level)
            w = fraction_of(position, cell)
            scale = slope_scale(position, level)
            rows = corner_rows(cell, level)
            value = incoming[run.level + i, n]
            corners = vec8f()
            for c in range(8):
                corners[c] = wp.dot(table[rows[c]], value)
            if wp.static(second):
                direction = wp.cw_mul(scale, along[n])
                wp.atomic_add(out, n, wp.cw_mul(scale, trilinear_curvature(corners, w, direction)))
            else:
                wp.atomic_add(out, n, wp.cw_mul(scale, trilinear_slope(corners, w)))

    return slope

"""The Warp kernels that look up textures; `texture.py` launches them.

A texture with its smaller versions lies in one row of texels, level after level; `levels` holds the first
texel, the height and the width of each.
"""

# mypy: disable-error-code="index, misc, operator"
# (bodies of kernels are Warp's language)

from __future__ import annotations

import warp as wp

from maquette.kernels.launch import MODULE_OPTIONS

wp.set_module_options(MODULE_OPTIONS)

WRAP, CLAMP, BORDER = 0, 1, 2


@wp.struct
class Taps:
    """Four texels and where between them a place is."""

    upper_left: wp.int32
    upper_right: wp.int32
    lower_left: wp.int32
    lower_right: wp.int32
    x: wp.float32
    """From the left (0) to the right (1)."""
    y: wp.float32
    """From the upper (0) to the lower (1)."""


@wp.func
def inside(i: wp.int32, size: wp.int32, boundary: wp.int32) -> wp.int32:
    """The texel that stands for one that may be outside; -1 for none."""
    if boundary == wp.static(WRAP):
        return (i % size + size) % size
    if boundary == wp.static(BORDER) and (i < 0 or i >= size):
        return -1
    return wp.clamp(i, 0, size - 1)


@wp.func
def texel(level: wp.vec3i, row: wp.int32, column: wp.int32, boundary: wp.int32) -> wp.int32:
    """Number of a texel, -1 for none."""
    r, c = inside(row, level[1], boundary), inside(column, level[2], boundary)
    return wp.where(r < 0 or c < 0, -1, level[0] + r * level[2] + c)


@wp.func
def taps_at(uv: wp.vec2, level: wp.vec3i, boundary: wp.int32, nearest: wp.bool) -> Taps:
    """The texels around a place; all the same one for `nearest`."""
    u, v = uv[0], 1.0 - uv[1]
    if boundary == wp.static(WRAP):
        u -= wp.floor(u)
        v -= wp.floor(v)
    x, y = u * wp.float32(level[2]), v * wp.float32(level[1])
    taps = Taps()
    if nearest:
        taps.upper_left = texel(level, wp.int32(wp.floor(y)), wp.int32(wp.floor(x)), boundary)
        taps.upper_right = taps.upper_left
        taps.lower_left = taps.upper_left
        taps.lower_right = taps.upper_left
        return taps
    x -= 0.5
    y -= 0.5
    left, top = wp.floor(x), wp.floor(y)
    column, row = wp.int32(left), wp.int32(top)
    taps.upper_left = texel(level, row, column, boundary)
    taps.upper_right = texel(level, row, column + 1, boundary)
    taps.lower_left = texel(level, row + 1, column, boundary)
    taps.lower_right = texel(level, row + 1, column + 1, boundary)
    taps.x = x - left
    taps.y = y - top
    return taps


@wp.func
def level_of_detail(slope: wp.vec4, size: wp.vec3i, levels: wp.int32) -> wp.float32:
    """Level at which a texel is as large as a pixel along the longer axis of its footprint."""
    w, h = wp.float32(size[2]), wp.float32(size[1])
    a, b, c, d = slope[0] * w, slope[1] * w, slope[2] * h, slope[3] * h
    half = 0.5 * (a * a + b * b + c * c + d * d)
    determinant = a * d - b * c
    longest = half + wp.sqrt(wp.max(half * half - determinant * determinant, 0.0))
    lod = 0.5 * wp.log2(wp.max(longest, 1.0e-20))
    return wp.min(wp.max(lod, 0.0), wp.float32(levels - 1))


@wp.func
def read(texels: wp.array3d[wp.float32], view: wp.int32, place: wp.int32, c: wp.int32) -> wp.float32:
    """A channel of a texel, 0 where there is none."""
    if place < 0:
        return 0.0
    return texels[view, place, c]


@wp.func
def blended(texels: wp.array3d[wp.float32], view: wp.int32, taps: Taps, c: wp.int32) -> wp.float32:
    """A channel between four texels."""
    upper = (1.0 - taps.x) * read(texels, view, taps.upper_left, c) + taps.x * read(
        texels, view, taps.upper_right, c
    )
    lower = (1.0 - taps.x) * read(texels, view, taps.lower_left, c) + taps.x * read(
        texels, view, taps.lower_right, c
    )
    return (1.0 - taps.y) * upper + taps.y * lower


@wp.func
def slope_at(
    texels: wp.array3d[wp.float32], view: wp.int32, taps: Taps, level: wp.vec3i, c: wp.int32
) -> wp.vec2:
    """Change of a channel with u and with v."""
    upper_left, upper_right = read(texels, view, taps.upper_left, c), read(texels, view, taps.upper_right, c)
    lower_left, lower_right = read(texels, view, taps.lower_left, c), read(texels, view, taps.lower_right, c)
    right = (1.0 - taps.y) * (upper_right - upper_left) + taps.y * (lower_right - lower_left)
    down = (1.0 - taps.x) * (lower_left - upper_left) + taps.x * (lower_right - upper_right)
    return wp.vec2(right * wp.float32(level[2]), -down * wp.float32(level[1]))


@wp.kernel
def look_up(
    first: wp.int32,
    run: wp.int32,
    texels: wp.array3d[wp.float32],
    levels: wp.array[wp.vec3i],
    per_view: wp.int32,
    uvs: wp.array[wp.vec2],
    slopes: wp.array[wp.vec4],
    boundary: wp.int32,
    nearest: wp.bool,
    out: wp.array2d[wp.float32],
) -> None:
    """Values of the texture."""
    begin = first + wp.tid() * run
    for i in range(begin, begin + run):
        view, lod = i / per_view, wp.float32(0.0)
        if levels.shape[0] > 1:
            lod = level_of_detail(slopes[i], levels[0], levels.shape[0])
        fine = wp.int32(lod)
        share = lod - wp.float32(fine)
        taps = taps_at(uvs[i], levels[fine], boundary, nearest)
        for c in range(out.shape[1]):
            out[i, c] = blended(texels, view, taps, c)
        if share > 0.0:
            taps = taps_at(uvs[i], levels[fine + 1], boundary, nearest)
            for c in range(out.shape[1]):
                out[i, c] = (1.0 - share) * out[i, c] + share * blended(texels, view, taps, c)


@wp.kernel
def look_up_backward_to_uv(
    first: wp.int32,
    run: wp.int32,
    texels: wp.array3d[wp.float32],
    levels: wp.array[wp.vec3i],
    per_view: wp.int32,
    uvs: wp.array[wp.vec2],
    slopes: wp.array[wp.vec4],
    boundary: wp.int32,
    grad: wp.array2d[wp.float32],
    to_uvs: wp.array[wp.vec2],
) -> None:
    """Gradients of places; that of the level of detail is left out."""
    begin = first + wp.tid() * run
    for i in range(begin, begin + run):
        view, lod = i / per_view, wp.float32(0.0)
        if levels.shape[0] > 1:
            lod = level_of_detail(slopes[i], levels[0], levels.shape[0])
        fine = wp.int32(lod)
        share = lod - wp.float32(fine)
        taps = taps_at(uvs[i], levels[fine], boundary, False)
        total = wp.vec2()
        for c in range(grad.shape[1]):
            total += (1.0 - share) * grad[i, c] * slope_at(texels, view, taps, levels[fine], c)
        if share > 0.0:
            taps = taps_at(uvs[i], levels[fine + 1], boundary, False)
            for c in range(grad.shape[1]):
                total += share * grad[i, c] * slope_at(texels, view, taps, levels[fine + 1], c)
        to_uvs[i] = total


@wp.func
def spread(
    sums: wp.array3d[wp.float32], row: wp.int32, place: wp.int32, c: wp.int32, value: wp.float32
) -> None:
    """Add to a channel of a texel, if there is one."""
    if place >= 0:
        wp.atomic_add(sums, row, place, c, value)


@wp.func
def give_back(
    sums: wp.array3d[wp.float32],
    row: wp.int32,
    taps: Taps,
    share: wp.float32,
    grad: wp.array2d[wp.float32],
    i: wp.int32,
) -> None:
    """The adjoint of `blended`, for all channels."""
    for c in range(grad.shape[1]):
        upper, lower = (1.0 - taps.y) * share * grad[i, c], taps.y * share * grad[i, c]
        spread(sums, row, taps.upper_left, c, (1.0 - taps.x) * upper)
        spread(sums, row, taps.upper_right, c, taps.x * upper)
        spread(sums, row, taps.lower_left, c, (1.0 - taps.x) * lower)
        spread(sums, row, taps.lower_right, c, taps.x * lower)


@wp.kernel
def look_up_backward_to_texels(
    first: wp.int32,
    run: wp.int32,
    row: wp.int32,
    per_row: wp.int32,
    sums: wp.array3d[wp.float32],
    levels: wp.array[wp.vec3i],
    uvs: wp.array[wp.vec2],
    slopes: wp.array[wp.vec4],
    boundary: wp.int32,
    nearest: wp.bool,
    grad: wp.array2d[wp.float32],
) -> None:
    """Gradients of texels."""
    begin = first + wp.tid() * run
    for i in range(begin, begin + run):
        lod = wp.float32(0.0)
        if levels.shape[0] > 1:
            lod = level_of_detail(slopes[i], levels[0], levels.shape[0])
        fine = wp.int32(lod)
        share = lod - wp.float32(fine)
        place = row + (i - first) / per_row
        taps = taps_at(uvs[i], levels[fine], boundary, nearest)
        give_back(sums, place, taps, 1.0 - share, grad, i)
        if share > 0.0:
            taps = taps_at(uvs[i], levels[fine + 1], boundary, nearest)
            give_back(sums, place, taps, share, grad, i)

"""The Warp kernels that find the face of each pixel; `rasterize.py` launches them.

A pixel (row j, column i) looks along the ray r = (2i + 1 - W, 2j + 1 - H, 1) of clip space, scaled so that a
pixel is two units wide and the middle of the picture is exactly zero. A face with the corners A, B, C, each
as (x, y, w), is met where r is on the inner side of the three planes B x C, C x A and A x B through the eye
(Olano and Greer 1997, "Triangle scan conversion using 2D homogeneous coordinates"), which needs no clipping:
corners behind the camera are as good as others. The three products with r are the perspective-correct
weights times one common factor.

Planes are computed in double precision: products of single precision numbers are exact there, so A x B is
exactly -(B x A), whatever the compiler makes of it, and two faces at an edge decide by exactly opposite
numbers.
"""

# mypy: disable-error-code="index, misc, operator, attr-defined, call-overload"
# (bodies of kernels are Warp's language)

from __future__ import annotations

import warp as wp

from maquette.kernels.launch import MODULE_OPTIONS

wp.set_module_options(MODULE_OPTIONS)

NOTHING = 0x7FFFFFFFFFFFFFFF
"""Key of a pixel without a face."""
LANES = 32
"""Threads that share the rows of a face on a GPU."""
_TINY = wp.constant(wp.float64(1.0e-300))
_SLACK = wp.constant(wp.float64(1.0e-6))
_HUGE = wp.constant(wp.float64(1.0e30))


@wp.struct
class FacePlanes:
    """Planes through the eye and the edges opposite to the corners, pointing inwards; and the depth."""

    a: wp.vec3d
    b: wp.vec3d
    c: wp.vec3d
    nearness: wp.vec3d
    """(1 - z / w) / 2 at the ray."""
    least: wp.vec3d
    """What products with a ray must reach to be inside."""
    volume: wp.float64
    """Determinant of the corners; not above zero where the face is degenerate."""


@wp.func
def corner(clip: wp.array2d[wp.vec4], view: wp.int32, vertex: wp.int32) -> wp.vec4d:
    """A vertex in clip space."""
    p = clip[view, vertex]
    return wp.vec4d(wp.float64(p[0]), wp.float64(p[1]), wp.float64(p[2]), wp.float64(p[3]))


@wp.func
def seen_from_eye(p: wp.vec4d) -> wp.vec3d:
    """x, y and w."""
    return wp.vec3d(p[0], p[1], p[3])


@wp.func
def least_of(n: wp.vec3d) -> wp.float64:
    """What a ray must reach to be inside: of two faces at an edge, only one owns the rays exactly on it."""
    if n[0] > wp.float64(0.0) or (n[0] == wp.float64(0.0) and n[1] > wp.float64(0.0)):
        return wp.float64(0.0)
    return _TINY


@wp.func
def planes_of(a: wp.vec4d, b: wp.vec4d, c: wp.vec4d, height: wp.int32, width: wp.int32) -> FacePlanes:
    """Planes of a face, for rays in units of half pixels."""
    p, q, r = seen_from_eye(a), seen_from_eye(b), seen_from_eye(c)
    opposite_a = wp.cross(q, r)
    volume = wp.dot(p, opposite_a)
    scale = wp.where(volume < wp.float64(0.0), wp.float64(-1.0), wp.float64(1.0))
    in_pixels = wp.vec3d(scale / wp.float64(width), scale / wp.float64(height), scale)
    planes = FacePlanes()
    planes.a = wp.cw_mul(in_pixels, opposite_a)
    planes.b = wp.cw_mul(in_pixels, wp.cross(r, p))
    planes.c = wp.cw_mul(in_pixels, wp.cross(p, q))
    planes.least = wp.vec3d(least_of(planes.a), least_of(planes.b), least_of(planes.c))
    planes.volume = wp.abs(volume)
    half = wp.float64(0.5) / planes.volume
    planes.nearness = (
        (a[3] - a[2]) * half * planes.a + (b[3] - b[2]) * half * planes.b + (c[3] - c[2]) * half * planes.c
    )
    return planes


@wp.func
def draw_row(
    planes: FacePlanes,
    face: wp.int32,
    row: wp.int32,
    begin: wp.int32,
    end: wp.int32,
    height: wp.int32,
    width: wp.int32,
    first: wp.int32,
    keys: wp.array[wp.int64],
) -> None:
    """Enter a face into a run of pixels; the smallest key stays.

    A key is the depth, then the face: the bits of positive floats have the order of their values.
    """
    y = wp.float64(2 * row + 1 - height)
    a = planes.a[1] * y + planes.a[2]
    b = planes.b[1] * y + planes.b[2]
    c = planes.c[1] * y + planes.c[2]
    d = planes.nearness[1] * y + planes.nearness[2]
    for column in range(begin, end):
        x = wp.float64(2 * column + 1 - width)
        inside = planes.a[0] * x + a >= planes.least[0] and planes.b[0] * x + b >= planes.least[1]
        if inside and planes.c[0] * x + c >= planes.least[2]:
            near = planes.nearness[0] * x + d
            if near >= wp.float64(0.0) and near <= wp.float64(1.0):
                order = wp.int64(0x7FFFFFFF - wp.cast(wp.float32(near), wp.int32))
                wp.atomic_min(keys, first + column, (order << wp.int64(32)) | wp.int64(face))


@wp.func
def reach(low: wp.float64, high: wp.float64, size: wp.int32) -> wp.vec2i:
    """First pixel and end of the pixels whose centres are between two NDC coordinates."""
    half = wp.float64(0.5) * wp.float64(size)
    middle = half - wp.float64(0.5)
    begin = wp.clamp(wp.ceil(low * half + middle - _SLACK), wp.float64(0.0), wp.float64(size))
    end = wp.clamp(wp.floor(high * half + middle + _SLACK), wp.float64(-1.0), wp.float64(size - 1))
    return wp.vec2i(wp.int32(begin), wp.int32(end) + 1)


@wp.func
def box_behind_near(p: wp.vec4d, q: wp.vec4d, box: wp.vec4d) -> wp.vec4d:
    """The box, grown to hold the part of an edge that is behind the near plane; everything if w <= 0 there.

    Boxes are least x, least y, greatest x, greatest y, in NDC.
    """
    before, after = p[2] + p[3], q[2] + q[3]
    grown = box
    for end in range(2):
        point = p
        counts = before > wp.float64(0.0)
        if end == 1:
            counts = (before > wp.float64(0.0)) != (after > wp.float64(0.0))
            if counts:
                point = p + (before / (before - after)) * (q - p)
        if counts:
            x, y = point[0] / point[3], point[1] / point[3]
            if point[3] <= wp.float64(0.0):
                return wp.vec4d(-_HUGE, -_HUGE, _HUGE, _HUGE)
            grown = wp.vec4d(
                wp.min(grown[0], x), wp.min(grown[1], y), wp.max(grown[2], x), wp.max(grown[3], y)
            )
    return grown


@wp.func
def box_of(a: wp.vec4d, b: wp.vec4d, c: wp.vec4d) -> wp.vec4d:
    """The box of the part of a face that is behind the near plane."""
    nearest = wp.min(wp.min(a[2] + a[3], b[2] + b[3]), c[2] + c[3])
    if nearest > wp.float64(0.0) and wp.min(wp.min(a[3], b[3]), c[3]) > wp.float64(0.0):
        f, g, h = wp.float64(1.0) / a[3], wp.float64(1.0) / b[3], wp.float64(1.0) / c[3]
        return wp.vec4d(
            wp.min(wp.min(a[0] * f, b[0] * g), c[0] * h),
            wp.min(wp.min(a[1] * f, b[1] * g), c[1] * h),
            wp.max(wp.max(a[0] * f, b[0] * g), c[0] * h),
            wp.max(wp.max(a[1] * f, b[1] * g), c[1] * h),
        )
    box = wp.vec4d(_HUGE, _HUGE, -_HUGE, -_HUGE)
    return box_behind_near(c, a, box_behind_near(b, c, box_behind_near(a, b, box)))


@wp.kernel
def bound(
    first: wp.int32,
    run: wp.int32,
    clip: wp.array2d[wp.vec4],
    faces: wp.array[wp.vec3i],
    height: wp.int32,
    width: wp.int32,
    boxes: wp.array[wp.vec4i],
) -> None:
    """First row, end of the rows, first column, end of the columns that each face of each view may cover."""
    begin = first + wp.tid() * run
    view, f = begin / faces.shape[0], begin % faces.shape[0]
    for i in range(begin, begin + run):
        face = faces[f]
        a, b, c = corner(clip, view, face[0]), corner(clip, view, face[1]), corner(clip, view, face[2])
        rows, columns = wp.vec2i(0, 0), wp.vec2i(0, 0)
        beyond = a[2] > a[3] and b[2] > b[3] and c[2] > c[3]
        if wp.isfinite(wp.dot(a + b + c, a + b + c)) and not beyond:
            box = box_of(a, b, c)
            rows, columns = reach(box[1], box[3], height), reach(box[0], box[2], width)
        if rows[0] >= rows[1] or columns[0] >= columns[1]:
            rows = wp.vec2i(0, 0)
        boxes[i] = wp.vec4i(rows[0], rows[1], columns[0], columns[1])
        f += 1
        if f == faces.shape[0]:
            f = 0
            view += 1


@wp.kernel
def cover_bands(
    first: wp.int32,
    bands: wp.int32,
    clip: wp.array2d[wp.vec4],
    faces: wp.array[wp.vec3i],
    boxes: wp.array[wp.vec4i],
    height: wp.int32,
    width: wp.int32,
    keys: wp.array[wp.int64],
) -> None:
    """Keys of the pixels of one band of rows of one view, by one thread."""
    i = first + wp.tid()
    view, band = i / bands, i % bands
    begin, end = band * height / bands, (band + 1) * height / bands
    for f in range(faces.shape[0]):
        box = boxes[view * faces.shape[0] + f]
        top, bottom = wp.max(box[0], begin), wp.min(box[1], end)
        if top < bottom:
            face = faces[f]
            a, b, c = corner(clip, view, face[0]), corner(clip, view, face[1]), corner(clip, view, face[2])
            planes = planes_of(a, b, c, height, width)
            if planes.volume > wp.float64(0.0):
                for row in range(top, bottom):
                    pixel = (view * height + row) * width
                    draw_row(planes, f, row, box[2], box[3], height, width, pixel, keys)


@wp.kernel
def cover_faces(
    first: wp.int32,
    clip: wp.array2d[wp.vec4],
    faces: wp.array[wp.vec3i],
    boxes: wp.array[wp.vec4i],
    height: wp.int32,
    width: wp.int32,
    keys: wp.array[wp.int64],
) -> None:
    """Keys of the pixels of one face, every `LANES`th row of it a thread."""
    i = first + wp.tid()
    lane, place = i % wp.static(LANES), i / wp.static(LANES)
    box = boxes[place]
    if box[0] + lane < box[1]:
        view, f = place / faces.shape[0], place % faces.shape[0]
        face = faces[f]
        a, b, c = corner(clip, view, face[0]), corner(clip, view, face[1]), corner(clip, view, face[2])
        planes = planes_of(a, b, c, height, width)
        if planes.volume > wp.float64(0.0):
            for row in range(box[0] + lane, box[1], wp.static(LANES)):
                pixel = (view * height + row) * width
                draw_row(planes, f, row, box[2], box[3], height, width, pixel, keys)


@wp.kernel
def resolve(
    first: wp.int32,
    run: wp.int32,
    clip: wp.array2d[wp.vec4],
    faces: wp.array[wp.vec3i],
    keys: wp.array[wp.int64],
    height: wp.int32,
    width: wp.int32,
    out_face: wp.array[wp.int32],
    out_barycentric: wp.array[wp.vec2],
    out_depth: wp.array[wp.float32],
    out_jacobian: wp.array[wp.vec4],
) -> None:
    """From the keys of pixels to their fragments."""
    begin = first + wp.tid() * run
    column, row, view = begin % width, begin / width % height, begin / (width * height)
    for i in range(begin, begin + run):
        key = keys[i]
        if key == wp.static(wp.int64(NOTHING)):
            out_face[i] = -1
            out_barycentric[i] = wp.vec2()
            out_depth[i] = 1.0
            out_jacobian[i] = wp.vec4()
        else:
            f = wp.int32(key & wp.int64(0x7FFFFFFF))
            face = faces[f]
            a, b, c = corner(clip, view, face[0]), corner(clip, view, face[1]), corner(clip, view, face[2])
            planes = planes_of(a, b, c, height, width)
            x, y = wp.float64(2 * column + 1 - width), wp.float64(2 * row + 1 - height)
            ray = wp.vec3d(x, y, wp.float64(1.0))
            total = planes.a + planes.b + planes.c
            scale = wp.float64(1.0) / wp.dot(total, ray)
            u, v = wp.dot(planes.a, ray) * scale, wp.dot(planes.b, ray) * scale
            slope_u = wp.float64(2.0) * scale * (planes.a - u * total)
            slope_v = wp.float64(2.0) * scale * (planes.b - v * total)
            out_face[i] = f
            out_barycentric[i] = wp.vec2(wp.float32(u), wp.float32(v))
            out_depth[i] = wp.float32(wp.float64(1.0) - wp.float64(2.0) * wp.dot(planes.nearness, ray))
            out_jacobian[i] = wp.vec4(
                wp.float32(slope_u[0]), wp.float32(slope_u[1]), wp.float32(slope_v[0]), wp.float32(slope_v[1])
            )
        column += 1
        if column == width:
            column = 0
            row += 1
            if row == height:
                row = 0
                view += 1


@wp.kernel
def resolve_backward(
    first: wp.int32,
    run: wp.int32,
    sums: wp.int32,
    per_row: wp.int32,
    to_clip: wp.array2d[wp.vec4],
    clip: wp.array2d[wp.vec4],
    faces: wp.array[wp.vec3i],
    per_view: wp.int32,
    seen: wp.array[wp.int32],
    barycentric: wp.array[wp.vec2],
    depth: wp.array[wp.float32],
    grad_barycentric: wp.array[wp.vec2],
    grad_depth: wp.array[wp.float32],
) -> None:
    """Gradients of the weights and of the depth, to the corners.

    With M = [A B C] and the weights b of the ray r, M b = w r. Moving corner i by d changes them by
    b_i (b (1 . M^-1 d) - M^-1 d), so that every corner gets the same vector, times its weight.
    """
    begin = first + wp.tid() * run
    for i in range(begin, begin + run):
        if seen[i] >= 0:
            face, view = faces[seen[i]], i / per_view
            a, b, c = corner(clip, view, face[0]), corner(clip, view, face[1]), corner(clip, view, face[2])
            u, v = wp.float64(barycentric[i][0]), wp.float64(barycentric[i][1])
            weights = wp.vec3d(u, v, wp.float64(1.0) - u - v)
            z, w = wp.float64(depth[i]), weights[0] * a[3] + weights[1] * b[3] + weights[2] * c[3]
            deep = wp.float64(grad_depth[i]) / w
            grad = wp.vec3d(
                wp.float64(grad_barycentric[i][0]) + deep * (a[2] - z * a[3]),
                wp.float64(grad_barycentric[i][1]) + deep * (b[2] - z * b[3]),
                deep * (c[2] - z * c[3]),
            )
            mean = wp.dot(grad, weights)
            p, q, r = seen_from_eye(a), seen_from_eye(b), seen_from_eye(c)
            opposite_a = wp.cross(q, r)
            push = (
                (mean - grad[0]) * opposite_a
                + (mean - grad[1]) * wp.cross(r, p)
                + (mean - grad[2]) * wp.cross(p, q)
            ) / wp.dot(p, opposite_a)
            moved = wp.vec4(
                wp.float32(push[0]), wp.float32(push[1]), wp.float32(deep), wp.float32(push[2] - deep * z)
            )
            row = sums + (i - first) / per_row
            for k in range(3):
                wp.atomic_add(to_clip, row, face[k], wp.float32(weights[k]) * moved)

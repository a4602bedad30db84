"""The Warp kernels of `antialias`: where silhouettes pass between pixels, and what that changes.

Two neighbouring pixels that show different faces may have a silhouette between them. It belongs to the
nearer one of the two faces, or to a face behind an edge of it: we cut the mesh with the plane through the
eye and the two pixel centres and follow the cut from the nearer pixel towards the other one, from face to
face, until it ends or turns back (a silhouette) or passes the other pixel (none). The cut has coordinates
(s, t, w): s in pixels from the nearer to the other pixel times w, t across, so that the cut is t = 0.
"""

# mypy: disable-error-code="index, misc, operator"
# (bodies of kernels are Warp's language)

from __future__ import annotations

import warp as wp

from maquette.kernels.launch import MODULE_OPTIONS

wp.set_module_options(MODULE_OPTIONS)

FARTHEST = wp.constant(64)
"""Faces that a cut is followed through, at most."""


@wp.struct
class Pair:
    """Two neighbouring pixels."""

    view: wp.int32
    near: wp.int32
    """Pixel with the nearer face."""
    far: wp.int32
    near_first: wp.bool
    """Whether that is the left or upper one."""
    row: wp.float64
    """Middle of the nearer pixel, in half pixels from the middle of the picture."""
    column: wp.float64
    along_x: wp.bool
    towards: wp.float64
    """1 if the other pixel is to the right or below, otherwise -1."""


@wp.func
def pair_of(
    i: wp.int32, downwards: wp.bool, depth: wp.array[wp.float32], height: wp.int32, width: wp.int32
) -> Pair:
    """The pair of a pixel and the one to its right or below."""
    pair = Pair()
    other = wp.where(downwards, i + width, i + 1)
    pair.view = i / (height * width)
    pair.near_first = depth[i] <= depth[other]
    pair.near = wp.where(pair.near_first, i, other)
    pair.far = wp.where(pair.near_first, other, i)
    pair.row = wp.float64(2 * (pair.near / width % height) + 1 - height)
    pair.column = wp.float64(2 * (pair.near % width) + 1 - width)
    pair.along_x = not downwards
    pair.towards = wp.where(pair.near_first, wp.float64(1.0), wp.float64(-1.0))
    return pair


@wp.func
def cut_coordinates(
    pair: Pair, clip: wp.array2d[wp.vec4], vertex: wp.int32, height: wp.int32, width: wp.int32
) -> wp.vec3d:
    """(s, t, w) of a vertex."""
    p = clip[pair.view, vertex]
    w = wp.float64(p[3])
    x = wp.float64(0.5) * (wp.float64(p[0]) * wp.float64(width) - pair.column * w)
    y = wp.float64(0.5) * (wp.float64(p[1]) * wp.float64(height) - pair.row * w)
    if pair.along_x:
        return wp.vec3d(pair.towards * x, y, w)
    return wp.vec3d(pair.towards * y, x, w)


@wp.func
def same_side(p: wp.vec3d, q: wp.vec3d) -> wp.bool:
    """Whether the cut does not pass between two vertices."""
    return (p[1] >= wp.float64(0.0)) == (q[1] >= wp.float64(0.0))


@wp.func
def where_cut(p: wp.vec3d, q: wp.vec3d) -> wp.vec2d:
    """(s, w) of the point of an edge on the cut."""
    share = wp.abs(p[1]) / (wp.abs(p[1]) + wp.abs(q[1]))
    return wp.vec2d(p[0] + share * (q[0] - p[0]), p[2] + share * (q[2] - p[2]))


@wp.func
def exit_edge(p: wp.vec3d, q: wp.vec3d, r: wp.vec3d) -> wp.int32:
    """The edge (from corner k to the next) by which the cut leaves the face of the nearer pixel; -1: none."""
    edge = wp.int32(-1)
    farthest = wp.float64(-1.0e300)
    if not same_side(p, q):
        edge = 0
        farthest = where_cut(p, q)[0]
    if not same_side(q, r):
        s = where_cut(q, r)[0]
        if s > farthest:
            edge = 1
            farthest = s
    if not same_side(r, p):
        s = where_cut(r, p)[0]
        if s > farthest:
            edge = 2
    return edge


@wp.func
def silhouette(
    pair: Pair,
    clip: wp.array2d[wp.vec4],
    faces: wp.array[wp.vec3i],
    opposite: wp.array[wp.int32],
    near_face: wp.int32,
    far_face: wp.int32,
    height: wp.int32,
    width: wp.int32,
) -> wp.int32:
    """The half-edge of the silhouette between two pixels, -1 if there is none."""
    face = faces[near_face]
    k = exit_edge(
        cut_coordinates(pair, clip, face[0], height, width),
        cut_coordinates(pair, clip, face[1], height, width),
        cut_coordinates(pair, clip, face[2], height, width),
    )
    if k < 0:
        return -1
    half_edge = 3 * near_face + k
    for _step in range(FARTHEST):
        k = half_edge % 3
        face = faces[half_edge / 3]
        here = where_cut(
            cut_coordinates(pair, clip, face[k], height, width),
            cut_coordinates(pair, clip, face[(k + 1) % 3], height, width),
        )
        if not (here[1] > wp.float64(0.0) and here[0] <= here[1]):
            return -1
        other = opposite[half_edge]
        if other < 0:
            return half_edge
        face = faces[other / 3]
        j = other % 3
        tip = cut_coordinates(pair, clip, face[(j + 2) % 3], height, width)
        following = wp.where(j == 0, 2, j - 1)
        end = cut_coordinates(pair, clip, face[j], height, width)
        if same_side(tip, end):
            following = wp.where(j == 2, 0, j + 1)
            end = cut_coordinates(pair, clip, face[(j + 1) % 3], height, width)
        ahead = where_cut(tip, end)
        if ahead[0] * here[1] < here[0] * ahead[1]:
            return half_edge
        if other / 3 == far_face:
            return -1
        half_edge = 3 * (other / 3) + following
    return -1


@wp.kernel
def find_silhouettes(
    first: wp.int32,
    clip: wp.array2d[wp.vec4],
    faces: wp.array[wp.vec3i],
    opposite: wp.array[wp.int32],
    seen: wp.array[wp.int32],
    depth: wp.array[wp.float32],
    height: wp.int32,
    width: wp.int32,
    edges: wp.array[wp.int32],
    shifts: wp.array[wp.float32],
) -> None:
    """Half-edge between each pixel and its neighbour to the right (2 i) and below (2 i + 1), -1 if none.

    And where it passes: 0 at the border of the two pixels, 1/2 at the centre of the right or lower one.
    """
    place = first + wp.tid()
    i, downwards = place / 2, place % 2 == 1
    edges[place] = -1
    inside = wp.where(downwards, i / width % height < height - 1, i % width < width - 1)
    if inside:
        if seen[i] != seen[wp.where(downwards, i + width, i + 1)]:
            pair = pair_of(i, downwards, depth, height, width)
            near_face, far_face = seen[pair.near], seen[pair.far]
            if near_face >= 0:
                edge = silhouette(pair, clip, faces, opposite, near_face, far_face, height, width)
                if edge >= 0:
                    face, k = faces[edge / 3], edge % 3
                    p = cut_coordinates(pair, clip, face[k], height, width)
                    q = cut_coordinates(pair, clip, face[(k + 1) % 3], height, width)
                    here = where_cut(p, q)
                    share = wp.clamp(here[0] / here[1], wp.float64(0.0), wp.float64(1.0))
                    edges[place] = edge
                    shifts[place] = wp.float32(pair.towards * (share - wp.float64(0.5)))


@wp.func
def shifts_around(i: wp.int32, shifts: wp.array[wp.float32], height: wp.int32, width: wp.int32) -> wp.vec4:
    """Of the pairs with the left, right, upper and lower neighbour; positive where that one is covered more."""
    around = wp.vec4()
    if i % width > 0:
        around[0] = -shifts[2 * i - 2]
    around[1] = shifts[2 * i]
    if i / width % height > 0:
        around[2] = -shifts[2 * (i - width) + 1]
    around[3] = shifts[2 * i + 1]
    return around


@wp.func
def neighbour(i: wp.int32, k: wp.int32, width: wp.int32) -> wp.int32:
    """The left, right, upper or lower pixel."""
    step = wp.where(k < 2, 1, width)
    return wp.where(k % 2 == 0, i - step, i + step)


@wp.kernel
def blend(
    first: wp.int32,
    shifts: wp.array[wp.float32],
    height: wp.int32,
    width: wp.int32,
    sign: wp.float32,
    color: wp.array2d[wp.float32],
    out: wp.array2d[wp.float32],
) -> None:
    """Add to each pixel its share of what neighbours show (`sign` -1), or the adjoint of that (`sign` 1)."""
    i = first + wp.tid()
    around = shifts_around(i, shifts, height, width)
    for k in range(4):
        if around[k] != 0.0:
            other = neighbour(i, k, width)
            taken, given = wp.max(-around[k], 0.0), wp.max(around[k], 0.0)
            for c in range(color.shape[1]):
                if sign < 0.0:
                    out[i, c] = out[i, c] + taken * (color[other, c] - color[i, c])
                else:
                    out[i, c] = out[i, c] + given * color[other, c] - taken * color[i, c]


@wp.kernel
def blend_backward_to_clip(
    first: wp.int32,
    row: wp.int32,
    per_row: wp.int32,
    to_clip: wp.array2d[wp.vec4],
    clip: wp.array2d[wp.vec4],
    faces: wp.array[wp.vec3i],
    depth: wp.array[wp.float32],
    height: wp.int32,
    width: wp.int32,
    edges: wp.array[wp.int32],
    shifts: wp.array[wp.float32],
    color: wp.array2d[wp.float32],
    grad: wp.array2d[wp.float32],
) -> None:
    """Gradient of where silhouettes pass, to the two vertices of each."""
    thread = wp.tid()
    if edges[first + thread] >= 0:
        i, downwards = (first + thread) / 2, (first + thread) % 2 == 1
        other = wp.where(downwards, i + width, i + 1)
        shift = shifts[first + thread]
        taken = wp.where(shift == 0.0, 0.5, wp.where(shift > 0.0, 1.0, 0.0))
        gain = wp.float32(0.0)
        for c in range(color.shape[1]):
            received = taken * grad[other, c] + (1.0 - taken) * grad[i, c]
            gain += received * (color[i, c] - color[other, c])
        pair = pair_of(i, downwards, depth, height, width)
        face, k = faces[edges[first + thread] / 3], edges[first + thread] % 3
        p = cut_coordinates(pair, clip, face[k], height, width)
        q = cut_coordinates(pair, clip, face[(k + 1) % 3], height, width)
        volume = p[2] * q[1] - q[2] * p[1]
        s = (p[0] * q[1] - q[0] * p[1]) / volume
        scale = pair.towards * wp.float64(gain) / volume
        to_p = scale * wp.vec3d(q[1], s * q[2] - q[0], -s * q[1])
        to_q = scale * wp.vec3d(-p[1], p[0] - s * p[2], s * p[1])
        place = row + thread / per_row
        wp.atomic_add(to_clip, place, face[k], moved(pair, to_p, height, width))
        wp.atomic_add(to_clip, place, face[(k + 1) % 3], moved(pair, to_q, height, width))


@wp.func
def moved(pair: Pair, grad: wp.vec3d, height: wp.int32, width: wp.int32) -> wp.vec4:
    """The adjoint of `cut_coordinates`."""
    half = wp.float64(0.5)
    to_x = wp.where(pair.along_x, pair.towards * grad[0], grad[1]) * half
    to_y = wp.where(pair.along_x, grad[1], pair.towards * grad[0]) * half
    return wp.vec4(
        wp.float32(to_x * wp.float64(width)),
        wp.float32(to_y * wp.float64(height)),
        0.0,
        wp.float32(grad[2] - pair.column * to_x - pair.row * to_y),
    )

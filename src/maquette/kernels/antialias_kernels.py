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
    row: wp.float64
    """Middle of the nearer pixel, in half pixels from the middle of the picture."""
    column: wp.float64
    height: wp.float64
    width: wp.float64
    along_x: wp.bool
    towards: wp.float64
    """1 if the other pixel is to the right or below, otherwise -1."""


@wp.struct
class Pixel:
    """A place in a batch of pictures."""

    view: wp.int32
    row: wp.int32
    column: wp.int32
    height: wp.int32
    width: wp.int32


@wp.func
def pixel_of(i: wp.int32, height: wp.int32, width: wp.int32) -> Pixel:
    """The place of a pixel."""
    pixel = Pixel()
    pixel.view = i / (height * width)
    pixel.row = i / width % height
    pixel.column = i % width
    pixel.height = height
    pixel.width = width
    return pixel


@wp.func
def moved_on(pixel: Pixel) -> Pixel:
    """The next place."""
    following = pixel
    following.column += 1
    if following.column == pixel.width:
        following.column = 0
        following.row += 1
        if following.row == pixel.height:
            following.row = 0
            following.view += 1
    return following


@wp.func
def pair_of(i: wp.int32, pixel: Pixel, downwards: wp.bool, depth: wp.array[wp.float32]) -> Pair:
    """The pair of a pixel and the one to its right or below."""
    pair = Pair()
    other = wp.where(downwards, i + pixel.width, i + 1)
    near_first = depth[i] <= depth[other]
    pair.view = pixel.view
    pair.near = wp.where(near_first, i, other)
    pair.far = wp.where(near_first, other, i)
    row = wp.where(downwards and not near_first, pixel.row + 1, pixel.row)
    column = wp.where(downwards or near_first, pixel.column, pixel.column + 1)
    pair.row = wp.float64(2 * row + 1 - pixel.height)
    pair.column = wp.float64(2 * column + 1 - pixel.width)
    pair.height = wp.float64(pixel.height)
    pair.width = wp.float64(pixel.width)
    pair.along_x = not downwards
    pair.towards = wp.where(near_first, wp.float64(1.0), wp.float64(-1.0))
    return pair


@wp.func
def in_cut(pair: Pair, clip: wp.array2d[wp.vec4], vertex: wp.int32) -> wp.vec3d:
    """(s, t, w) of a vertex."""
    p = clip[pair.view, vertex]
    w = wp.float64(p[3])
    x = wp.float64(0.5) * (wp.float64(p[0]) * pair.width - pair.column * w)
    y = wp.float64(0.5) * (wp.float64(p[1]) * pair.height - pair.row * w)
    if pair.along_x:
        return wp.vec3d(pair.towards * x, y, w)
    return wp.vec3d(pair.towards * y, x, w)


@wp.func
def same_side(p: wp.vec3d, q: wp.vec3d) -> wp.bool:
    """Whether the cut does not pass between two vertices."""
    return (p[1] >= wp.float64(0.0)) == (q[1] >= wp.float64(0.0))


@wp.func
def where_cut(p: wp.vec3d, q: wp.vec3d) -> wp.vec2d:
    """(s, w) of the point of an edge on the cut, up to a positive factor."""
    a, b = wp.abs(p[1]), wp.abs(q[1])
    return wp.vec2d(b * p[0] + a * q[0], b * p[2] + a * q[2])


@wp.func
def exit_edge(p: wp.vec3d, q: wp.vec3d, r: wp.vec3d) -> wp.int32:
    """The edge (from corner k to the next) by which the cut leaves the face of the nearer pixel; -1: none.

    The cut comes in by one edge, at s <= 0, and leaves by another one.
    """
    best = wp.int32(-1)
    here = wp.vec2d(wp.float64(-1.0), wp.float64(0.0))
    if not same_side(p, q):
        best = 0
        here = where_cut(p, q)
    if not same_side(q, r):
        there = where_cut(q, r)
        if best < 0 or there[0] * here[1] > here[0] * there[1]:
            best = 1
            here = there
    if not same_side(r, p):
        there = where_cut(r, p)
        if best < 0 or there[0] * here[1] > here[0] * there[1]:
            best = 2
    return best


@wp.func
def silhouette(
    pair: Pair,
    clip: wp.array2d[wp.vec4],
    faces: wp.array[wp.vec3i],
    opposite: wp.array[wp.int32],
    near_face: wp.int32,
    far_face: wp.int32,
) -> wp.int32:
    """The half-edge of the silhouette between two pixels, -1 if there is none."""
    face = faces[near_face]
    a, b, c = in_cut(pair, clip, face[0]), in_cut(pair, clip, face[1]), in_cut(pair, clip, face[2])
    k = exit_edge(a, b, c)
    if k < 0:
        return -1
    half_edge = 3 * near_face + k
    p, q = wp.where(k == 0, a, wp.where(k == 1, b, c)), wp.where(k == 0, b, wp.where(k == 1, c, a))
    p_vertex, q_vertex = face[k], face[(k + 1) % 3]
    here = where_cut(p, q)
    for _step in range(FARTHEST):
        if not (here[1] > wp.float64(0.0) and here[0] <= here[1]):
            return -1
        other = opposite[half_edge]
        if other < 0:
            return half_edge
        following = other / 3
        face = faces[following]
        tip_vertex = face[0] + face[1] + face[2] - p_vertex - q_vertex
        tip = in_cut(pair, clip, tip_vertex)
        if same_side(tip, p):
            p_vertex = tip_vertex
            p = tip
        else:
            q_vertex = tip_vertex
            q = tip
        ahead = where_cut(p, q)
        if ahead[0] * here[1] < here[0] * ahead[1]:
            return half_edge
        if following == far_face:
            return -1
        here = ahead
        half_edge = 3 * following + edge_between(face, p_vertex, q_vertex)
    return -1


@wp.func
def turned(jacobian: wp.vec4) -> wp.bool:
    """Whether a face shows its back."""
    return jacobian[0] * jacobian[3] < jacobian[1] * jacobian[2]


@wp.func
def continues(
    faces: wp.array[wp.vec3i], opposite: wp.array[wp.int32], face: wp.int32, other: wp.int32, same: wp.bool
) -> wp.bool:
    """Whether two faces share an edge there and show the `same` side, so that the surface goes on."""
    for k in range(3):
        half_edge = opposite[3 * face + k]
        if half_edge >= 0:
            if half_edge / 3 == other:
                aligned = faces[other][half_edge % 3] != faces[face][k]
                return aligned == same
    return False


@wp.func
def edge_between(face: wp.vec3i, p: wp.int32, q: wp.int32) -> wp.int32:
    """Which edge of a face joins two of its vertices."""
    if face[0] != p and face[0] != q:
        return 1
    if face[1] != p and face[1] != q:
        return 2
    return 0


@wp.func
def is_across(p: wp.vec3d, q: wp.vec3d, downwards: wp.bool) -> wp.bool:
    """Whether an edge runs across the cut rather than along it, so that it counts in one direction only."""
    across, along = wp.abs(p[1] * q[2] - p[2] * q[1]), wp.abs(p[0] * q[2] - p[2] * q[0])
    return across > along or (across == along and not downwards)


@wp.func
def find(
    i: wp.int32,
    pixel: Pixel,
    downwards: wp.bool,
    clip: wp.array2d[wp.vec4],
    faces: wp.array[wp.vec3i],
    opposite: wp.array[wp.int32],
    seen: wp.array[wp.int32],
    depth: wp.array[wp.float32],
    jacobian: wp.array[wp.vec4],
    edges: wp.array[wp.int32],
    shifts: wp.array[wp.float32],
) -> None:
    """Enter the silhouette of one pair."""
    other = wp.where(downwards, i + pixel.width, i + 1)
    if seen[i] >= 0 and seen[other] >= 0:
        same = turned(jacobian[i]) == turned(jacobian[other])
        if continues(faces, opposite, seen[i], seen[other], same):
            return
    pair = pair_of(i, pixel, downwards, depth)
    near_face = seen[pair.near]
    if near_face >= 0:
        edge = silhouette(pair, clip, faces, opposite, near_face, seen[pair.far])
        if edge >= 0:
            face, k = faces[edge / 3], edge % 3
            p, q = in_cut(pair, clip, face[k]), in_cut(pair, clip, face[(k + 1) % 3])
            if is_across(p, q, downwards):
                here = where_cut(p, q)
                share = wp.clamp(here[0] / here[1], wp.float64(0.0), wp.float64(1.0))
                place = wp.where(downwards, 2 * i + 1, 2 * i)
                edges[place] = edge
                shifts[place] = wp.float32(pair.towards * (share - wp.float64(0.5)))


@wp.kernel
def find_silhouettes(
    first: wp.int32,
    run: wp.int32,
    clip: wp.array2d[wp.vec4],
    faces: wp.array[wp.vec3i],
    opposite: wp.array[wp.int32],
    seen: wp.array[wp.int32],
    depth: wp.array[wp.float32],
    jacobian: wp.array[wp.vec4],
    height: wp.int32,
    width: wp.int32,
    edges: wp.array[wp.int32],
    shifts: wp.array[wp.float32],
) -> None:
    """Half-edge between each pixel and its neighbour to the right (2 i) and below (2 i + 1), -1 if none.

    And where it passes: 0 at the border of the two pixels, 1/2 at the centre of the right or lower one.
    """
    begin = first + wp.tid() * run
    pixel = pixel_of(begin, height, width)
    for i in range(begin, begin + run):
        edges[2 * i] = -1
        edges[2 * i + 1] = -1
        if pixel.column < width - 1:
            if seen[i] != seen[i + 1]:
                find(i, pixel, False, clip, faces, opposite, seen, depth, jacobian, edges, shifts)
        if pixel.row < height - 1:
            if seen[i] != seen[i + width]:
                find(i, pixel, True, clip, faces, opposite, seen, depth, jacobian, edges, shifts)
        pixel = moved_on(pixel)


@wp.func
def give(
    source: wp.int32,
    target: wp.int32,
    share: wp.float32,
    adjoint: wp.bool,
    color: wp.array2d[wp.float32],
    out: wp.array2d[wp.float32],
) -> None:
    """Blend a pixel into its neighbour, or the adjoint of that."""
    for c in range(color.shape[1]):
        if adjoint:
            wp.atomic_add(out, source, c, share * color[target, c])
            wp.atomic_add(out, target, c, -share * color[target, c])
        else:
            wp.atomic_add(out, target, c, share * (color[source, c] - color[target, c]))


@wp.kernel
def blend(
    shifts: wp.array[wp.float32],
    silhouettes: wp.array[wp.int64],
    width: wp.int32,
    adjoint: wp.bool,
    color: wp.array2d[wp.float32],
    out: wp.array2d[wp.float32],
) -> None:
    """Change the pixels at silhouettes."""
    place = wp.int32(silhouettes[wp.tid()])
    i = place / 2
    other = wp.where(place % 2 == 1, i + width, i + 1)
    if shifts[place] > 0.0:
        give(i, other, shifts[place], adjoint, color, out)
    else:
        give(other, i, -shifts[place], adjoint, color, out)


@wp.kernel
def blend_backward_to_clip(
    to_clip: wp.array2d[wp.vec4],
    clip: wp.array2d[wp.vec4],
    faces: wp.array[wp.vec3i],
    depth: wp.array[wp.float32],
    height: wp.int32,
    width: wp.int32,
    silhouettes: wp.array[wp.int64],
    edges: wp.array[wp.int32],
    shifts: wp.array[wp.float32],
    color: wp.array2d[wp.float32],
    grad: wp.array2d[wp.float32],
) -> None:
    """Gradient of where silhouettes pass, to the two vertices of each."""
    place = wp.int32(silhouettes[wp.tid()])
    i, downwards = place / 2, place % 2 == 1
    other = wp.where(downwards, i + width, i + 1)
    shift = shifts[place]
    taken = wp.where(shift == 0.0, 0.5, wp.where(shift > 0.0, 1.0, 0.0))
    gain = wp.float32(0.0)
    for c in range(color.shape[1]):
        received = taken * grad[other, c] + (1.0 - taken) * grad[i, c]
        gain += received * (color[i, c] - color[other, c])
    pair = pair_of(i, pixel_of(i, height, width), downwards, depth)
    face, k = faces[edges[place] / 3], edges[place] % 3
    p, q = in_cut(pair, clip, face[k]), in_cut(pair, clip, face[(k + 1) % 3])
    volume = p[2] * q[1] - q[2] * p[1]
    s = (p[0] * q[1] - q[0] * p[1]) / volume
    scale = pair.towards * wp.float64(gain) / volume
    to_p = scale * wp.vec3d(q[1], s * q[2] - q[0], -s * q[1])
    to_q = scale * wp.vec3d(-p[1], p[0] - s * p[2], s * p[1])
    wp.atomic_add(to_clip, pair.view, face[k], from_cut(pair, to_p))
    wp.atomic_add(to_clip, pair.view, face[(k + 1) % 3], from_cut(pair, to_q))


@wp.func
def from_cut(pair: Pair, grad: wp.vec3d) -> wp.vec4:
    """The adjoint of `in_cut`."""
    half = wp.float64(0.5)
    to_x = wp.where(pair.along_x, pair.towards * grad[0], grad[1]) * half
    to_y = wp.where(pair.along_x, grad[1], pair.towards * grad[0]) * half
    return wp.vec4(
        wp.float32(to_x * pair.width),
        wp.float32(to_y * pair.height),
        0.0,
        wp.float32(grad[2] - pair.column * to_x - pair.row * to_y),
    )

"""The Warp kernels that draw a mesh; `render_mesh.py` launches them.

First `cover` finds the face that each ray meets, then `shade` looks at the surface there. Points, normals and
the light are given in the frame of the camera (OpenGL: x right, y up, looking along -z), where the ray of
a sample is (x, y, -1).
"""

# mypy: disable-error-code="index, misc, operator"
# (bodies of kernels are Warp's language)

from __future__ import annotations

import warp as wp

from maquette.kernels.launch import MODULE_OPTIONS

wp.set_module_options(MODULE_OPTIONS)

NEAR = wp.constant(1.0e-6)
"""Nothing nearer than this is seen, world units."""

GREY, VERTEX_COLORS, TEXTURE = 0, 1, 2
"""Where the colour of a surface comes from (`Camera.paint`)."""


@wp.struct
class Camera:
    """One view, and how to draw it."""

    right: wp.vec3
    up: wp.vec3
    back: wp.vec3
    light: wp.vec3
    focal: wp.float32
    """Distance of the picture plane, in samples."""
    height: wp.int32
    """Rows of samples."""
    width: wp.int32
    """Columns of samples."""
    side: wp.int32
    """Samples along each side of a pixel."""
    ambient: wp.float32
    diffuse: wp.float32
    paint: wp.int32
    grey: wp.float32


@wp.func
def ray_of(camera: Camera, row: wp.int32, column: wp.int32) -> wp.vec3:
    """The ray of a sample."""
    x = wp.float32(column) + 0.5 - 0.5 * wp.float32(camera.width)
    y = 0.5 * wp.float32(camera.height) - wp.float32(row) - 0.5
    return wp.vec3(x / camera.focal, y / camera.focal, -1.0)


@wp.func
def edge(points: wp.array[wp.vec3], i: wp.int32, j: wp.int32) -> wp.vec3:
    """The plane through the eye and an edge; exactly opposite for the two faces at the edge."""
    if i < j:
        return wp.cross(points[i], points[j])
    return -wp.cross(points[j], points[i])


@wp.func
def extent(camera: Camera, a: wp.vec3, b: wp.vec3, c: wp.vec3) -> wp.vec4i:
    """First row, end of the rows, first column, end of the columns that a face may cover."""
    nearest = wp.min(wp.min(-a[2], -b[2]), -c[2])
    farthest = wp.max(wp.max(-a[2], -b[2]), -c[2])
    if farthest <= NEAR:
        return wp.vec4i(0, 0, 0, 0)
    if nearest <= NEAR:
        return wp.vec4i(0, camera.height, 0, camera.width)
    ax, bx, cx = -a[0] / a[2], -b[0] / b[2], -c[0] / c[2]
    ay, by, cy = a[1] / a[2], b[1] / b[2], c[1] / c[2]
    top = 0.5 * wp.float32(camera.height) + camera.focal * wp.min(wp.min(ay, by), cy)
    bottom = 0.5 * wp.float32(camera.height) + camera.focal * wp.max(wp.max(ay, by), cy)
    left = 0.5 * wp.float32(camera.width) + camera.focal * wp.min(wp.min(ax, bx), cx)
    right = 0.5 * wp.float32(camera.width) + camera.focal * wp.max(wp.max(ax, bx), cx)
    return wp.vec4i(
        wp.int32(wp.clamp(top - 1.0, 0.0, wp.float32(camera.height))),
        wp.int32(wp.clamp(bottom + 1.0, 0.0, wp.float32(camera.height))),
        wp.int32(wp.clamp(left - 1.0, 0.0, wp.float32(camera.width))),
        wp.int32(wp.clamp(right + 1.0, 0.0, wp.float32(camera.width))),
    )


@wp.kernel
def cover(
    first: wp.int32,
    bands: wp.int32,
    camera: Camera,
    points: wp.array[wp.vec3],
    faces: wp.array[wp.vec3i],
    depth: wp.array2d[wp.float32],
    seen: wp.array2d[wp.int32],
) -> None:
    """Nearest face and its depth (along -z) at each sample of one of `bands` bands of rows.

    A ray meets a face where it is on one side of the three planes through the eye and an edge (Olano and
    Greer 1997, "Triangle scan conversion using 2D homogeneous coordinates"); both sides of a face count.
    """
    band = first + wp.tid()
    begin = band * camera.height / bands
    end = (band + 1) * camera.height / bands
    for f in range(faces.shape[0]):
        face = faces[f]
        a, b, c = points[face[0]], points[face[1]], points[face[2]]
        box = extent(camera, a, b, c)
        top, bottom = wp.max(box[0], begin), wp.min(box[1], end)
        if top < bottom and box[2] < box[3]:
            n = wp.cross(b - a, c - a)
            offset = wp.dot(a, n)
            opposite_a, opposite_b = edge(points, face[1], face[2]), edge(points, face[2], face[0])
            opposite_c = edge(points, face[0], face[1])
            for row in range(top, bottom):
                for column in range(box[2], box[3]):
                    ray = ray_of(camera, row, column)
                    u, v, w = wp.dot(ray, opposite_a), wp.dot(ray, opposite_b), wp.dot(ray, opposite_c)
                    inside = (u >= 0.0 and v >= 0.0 and w >= 0.0) or (u <= 0.0 and v <= 0.0 and w <= 0.0)
                    slope = wp.dot(ray, n)
                    if inside and slope != 0.0:
                        z = offset / slope
                        if z > NEAR and z < depth[row, column]:
                            depth[row, column] = z
                            seen[row, column] = f


@wp.func
def barycentric(p: wp.vec3, a: wp.vec3, b: wp.vec3, c: wp.vec3) -> wp.vec3:
    """Weights of the corners at a point of their plane."""
    ab, ac, ap = b - a, c - a, p - a
    bb, bc, cc = wp.dot(ab, ab), wp.dot(ab, ac), wp.dot(ac, ac)
    pb, pc = wp.dot(ap, ab), wp.dot(ap, ac)
    area = bb * cc - bc * bc
    v = (cc * pb - bc * pc) / area
    w = (bb * pc - bc * pb) / area
    return wp.vec3(1.0 - v - w, v, w)


@wp.func
def sample_texture(texture: wp.array2d[wp.vec3], uv: wp.vec2) -> wp.vec3:
    """Bilinear value at coordinates with v upwards; the border repeats outside."""
    bottom, right = texture.shape[0] - 1, texture.shape[1] - 1
    y = wp.clamp((1.0 - uv[1]) * wp.float32(bottom + 1) - 0.5, 0.0, wp.float32(bottom))
    x = wp.clamp(uv[0] * wp.float32(right + 1) - 0.5, 0.0, wp.float32(right))
    row, column = wp.int32(y), wp.int32(x)
    below, beside = wp.min(row + 1, bottom), wp.min(column + 1, right)
    t, s = y - wp.float32(row), x - wp.float32(column)
    upper = (1.0 - s) * texture[row, column] + s * texture[row, beside]
    lower = (1.0 - s) * texture[below, column] + s * texture[below, beside]
    return (1.0 - t) * upper + t * lower


@wp.kernel
def shade(
    first: wp.int32,
    camera: Camera,
    depth: wp.array2d[wp.float32],
    seen: wp.array2d[wp.int32],
    points: wp.array[wp.vec3],
    normals: wp.array[wp.vec3],
    faces: wp.array[wp.vec3i],
    colors: wp.array[wp.vec3],
    uvs: wp.array[wp.vec2],
    uv_faces: wp.array[wp.vec3i],
    texture: wp.array2d[wp.vec3],
    out: wp.array2d[wp.float32],
) -> None:
    """Means over the samples of a pixel: lit colour (3), world normal turned to the viewer (3), distance,
    coverage.
    """
    pixel = first + wp.tid()
    columns = camera.width / camera.side
    color, normal = wp.vec3(), wp.vec3()
    distance, covered = wp.float32(0.0), wp.float32(0.0)
    for sample in range(camera.side * camera.side):
        row = pixel / columns * camera.side + sample / camera.side
        column = pixel % columns * camera.side + sample % camera.side
        f = seen[row, column]
        if f >= 0:
            ray = ray_of(camera, row, column)
            p = depth[row, column] * ray
            i, j, k = faces[f][0], faces[f][1], faces[f][2]
            share = barycentric(p, points[i], points[j], points[k])
            n = wp.normalize(share[0] * normals[i] + share[1] * normals[j] + share[2] * normals[k])
            if wp.dot(n, ray) > 0.0:
                n = -n
            albedo = wp.vec3(camera.grey, camera.grey, camera.grey)
            if camera.paint == wp.static(VERTEX_COLORS):
                albedo = share[0] * colors[i] + share[1] * colors[j] + share[2] * colors[k]
            if camera.paint == wp.static(TEXTURE):
                place = uv_faces[f]
                uv = share[0] * uvs[place[0]] + share[1] * uvs[place[1]] + share[2] * uvs[place[2]]
                albedo = sample_texture(texture, uv)
            cosine = wp.max(wp.dot(n, wp.normalize(camera.light - p)), 0.0)
            color += (camera.ambient + camera.diffuse * cosine) * albedo
            normal += n[0] * camera.right + n[1] * camera.up + n[2] * camera.back
            distance += wp.length(p)
            covered += 1.0
    part = 1.0 / wp.float32(camera.side * camera.side)
    for channel in range(3):
        out[pixel, channel] = color[channel] * part
        out[pixel, 3 + channel] = normal[channel] * part
    out[pixel, 6] = distance * part
    out[pixel, 7] = covered * part

"""The Warp kernel that shades the pictures of a mesh; `render_mesh.py` launches it.

Points, normals and the light are given in the frame of the camera (OpenGL: x right, y up, looking along -z),
where the ray of a sample is (x, y, -1).
"""

# mypy: disable-error-code="index, misc, operator"
# (bodies of kernels are Warp's language)

from __future__ import annotations

import warp as wp

from maquette.kernels.launch import MODULE_OPTIONS
from maquette.kernels.rasterize_kernels import NOTHING
from maquette.kernels.texture_kernels import CLAMP, blended, taps_at

wp.set_module_options(MODULE_OPTIONS)

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
def texture_color(
    texels: wp.array3d[wp.float32], levels: wp.array[wp.vec3i], uv: wp.vec2, lod: wp.float32
) -> wp.vec3:
    """The texture at a level of detail; the border repeats outside."""
    fine = wp.int32(lod)
    taps = taps_at(uv, levels[fine], wp.static(CLAMP), False)
    color = wp.vec3(blended(texels, 0, taps, 0), blended(texels, 0, taps, 1), blended(texels, 0, taps, 2))
    share = lod - wp.float32(fine)
    if share > 0.0:
        taps = taps_at(uv, levels[fine + 1], wp.static(CLAMP), False)
        coarse = wp.vec3(
            blended(texels, 0, taps, 0), blended(texels, 0, taps, 1), blended(texels, 0, taps, 2)
        )
        color = (1.0 - share) * color + share * coarse
    return color


@wp.func
def level_of_detail(
    p: wp.vec2, q: wp.vec2, r: wp.vec2, levels: wp.array[wp.vec3i], area: wp.float32
) -> wp.float32:
    """Level at which a texel has the area of a sample, which is `area` times twice that of the face."""
    a, b = q - p, r - p
    texels = wp.float32(levels[0][1]) * wp.float32(levels[0][2]) * wp.abs(a[0] * b[1] - a[1] * b[0])
    lod = 0.5 * wp.log2(wp.max(texels * area, 1.0e-20))
    return wp.min(wp.max(lod, 0.0), wp.float32(levels.shape[0] - 1))


@wp.struct
class Surface:
    """A mesh in the frame of the camera, and its paint."""

    points: wp.array[wp.vec3]
    normals: wp.array[wp.vec3]
    faces: wp.array[wp.vec3i]
    colors: wp.array[wp.vec3]
    uvs: wp.array[wp.vec2]
    uv_faces: wp.array[wp.vec3i]
    texels: wp.array3d[wp.float32]
    levels: wp.array[wp.vec3i]


@wp.struct
class Sum:
    """Over the samples of a pixel."""

    color: wp.vec3
    normal: wp.vec3
    distance: wp.float32
    covered: wp.float32


@wp.func
def add_sample(sum: Sum, camera: Camera, mesh: Surface, ray: wp.vec3, f: wp.int32) -> Sum:
    """A sum with one more sample, which sees the face `f`."""
    face = mesh.faces[f]
    a, b, c = mesh.points[face[0]], mesh.points[face[1]], mesh.points[face[2]]
    across = wp.cross(b - a, c - a)
    slope = wp.dot(ray, across)
    depth = wp.dot(a, across) / slope
    p = depth * ray
    share = barycentric(p, a, b, c)
    n = share[0] * mesh.normals[face[0]] + share[1] * mesh.normals[face[1]] + share[2] * mesh.normals[face[2]]
    n = wp.normalize(n)
    if wp.dot(n, ray) > 0.0:
        n = -n
    albedo = wp.vec3(camera.grey, camera.grey, camera.grey)
    if camera.paint == wp.static(VERTEX_COLORS):
        albedo = (
            share[0] * mesh.colors[face[0]]
            + share[1] * mesh.colors[face[1]]
            + share[2] * mesh.colors[face[2]]
        )
    if camera.paint == wp.static(TEXTURE):
        place = mesh.uv_faces[f]
        d, e, g = mesh.uvs[place[0]], mesh.uvs[place[1]], mesh.uvs[place[2]]
        area = depth * depth / (camera.focal * camera.focal * wp.abs(slope))
        lod = level_of_detail(d, e, g, mesh.levels, area)
        albedo = texture_color(mesh.texels, mesh.levels, share[0] * d + share[1] * e + share[2] * g, lod)
    cosine = wp.max(wp.dot(n, wp.normalize(camera.light - p)), 0.0)
    added = sum
    added.color += (camera.ambient + camera.diffuse * cosine) * albedo
    added.normal += n[0] * camera.right + n[1] * camera.up + n[2] * camera.back
    added.distance += wp.length(p)
    added.covered += 1.0
    return added


@wp.kernel
def shade(
    first: wp.int32,
    run: wp.int32,
    camera: Camera,
    mesh: Surface,
    keys: wp.array2d[wp.int64],
    out: wp.array2d[wp.float32],
) -> None:
    """Means over the samples of a pixel: lit colour (3), world normal turned to the viewer (3), distance,
    coverage.
    """
    columns = camera.width / camera.side
    part = 1.0 / wp.float32(camera.side * camera.side)
    begin = first + wp.tid() * run
    row, column = begin / columns, begin % columns
    for pixel in range(begin, begin + run):
        sum = Sum()
        for j in range(row * camera.side, (row + 1) * camera.side):
            for i in range(column * camera.side, (column + 1) * camera.side):
                key = keys[j, i]
                if key != wp.static(wp.int64(NOTHING)):
                    sum = add_sample(
                        sum, camera, mesh, ray_of(camera, j, i), wp.int32(key & wp.int64(0x7FFFFFFF))
                    )
        for channel in range(3):
            out[pixel, channel] = sum.color[channel] * part
            out[pixel, 3 + channel] = sum.normal[channel] * part
        out[pixel, 6] = sum.distance * part
        out[pixel, 7] = sum.covered * part
        column += 1
        if column == columns:
            column = 0
            row += 1

"""The Warp kernels of the projection of Gaussians; `gaussian_projection.py` launches them.

A Gaussian seen by a camera becomes a map from pixels to its own units: with d the offset of a pixel from
the projected centre, s = frame d / (1 + slant d), and its falloff is exp(-|s|^2 / 2). For a 3D Gaussian the
slant is zero and frame the inverse of the Cholesky factor of its 2D covariance (Zwicker et al. 2002, "EWA
splatting", with the low-pass of Kerbl et al. 2023). For a flat one s is where the ray meets its plane (Huang
et al. 2024, "2D Gaussian splatting", section 4.2, solved for the offset from the centre), and 1 + slant d its
depth at the centre over its depth there. Both stand on the same 2x3 matrix `axes`: the axes of the Gaussian
through the Jacobian of the projection.

Cameras are OpenCV cameras (x right, y down, z forward).
"""

# mypy: disable-error-code="index, misc, operator"
# (bodies of kernels are Warp's language)

import warp as wp

from maquette.kernels.launch import MODULE_OPTIONS

wp.set_module_options(MODULE_OPTIONS)

mat23 = wp.types.matrix((2, 3), wp.float32)

LOW_PASS = wp.constant(0.3)
"""Variance of the low-pass filter of a 3D Gaussian, square pixels (Kerbl et al. 2023)."""
EDGE_ON = wp.constant(1.0e-8)
"""A flat Gaussian that covers less than this, square pixels, is seen from its edge."""
MARGIN = wp.constant(0.3)
"""The Jacobian of a 3D Gaussian farther outside the picture is that of here, in half widths from its edge."""


@wp.struct
class Lens:
    """What a camera does to points of its own frame, and how large its picture is."""

    focal: wp.vec2
    centre: wp.vec2
    size: wp.vec2
    """Width and height, pixels."""
    near: wp.float32


@wp.func
def lens_of(intrinsics: wp.mat33, width: wp.int32, height: wp.int32, near: wp.float32) -> Lens:
    """The lens of a pinhole matrix."""
    lens = Lens()
    lens.focal = wp.vec2(intrinsics[0, 0], intrinsics[1, 1])
    lens.centre = wp.vec2(intrinsics[0, 2], intrinsics[1, 2])
    lens.size = wp.vec2(wp.float32(width), wp.float32(height))
    lens.near = near
    return lens


@wp.func
def turn_of(pose: wp.mat44) -> wp.mat33:
    """The rotation of a world-to-camera matrix."""
    return wp.mat33(
        pose[0, 0], pose[0, 1], pose[0, 2],
        pose[1, 0], pose[1, 1], pose[1, 2],
        pose[2, 0], pose[2, 1], pose[2, 2],
    )  # fmt: skip


@wp.func
def matrix_of(q: wp.vec4) -> wp.mat33:
    """Rotation matrix of a unit quaternion (w, x, y, z)."""
    w, x, y, z = q[0], q[1], q[2], q[3]
    return wp.mat33(
        1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y),
        2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x),
        2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y),
    )  # fmt: skip


@wp.func
def matrix_backward(q: wp.vec4, g: wp.mat33) -> wp.vec4:
    """Gradient to the unit quaternion for the gradient `g` of its matrix."""
    w, x, y, z = q[0], q[1], q[2], q[3]
    to_w = x * (g[2, 1] - g[1, 2]) + y * (g[0, 2] - g[2, 0]) + z * (g[1, 0] - g[0, 1])
    to_x = y * (g[0, 1] + g[1, 0]) + z * (g[0, 2] + g[2, 0]) + w * (g[2, 1] - g[1, 2])
    to_y = x * (g[0, 1] + g[1, 0]) + z * (g[1, 2] + g[2, 1]) + w * (g[0, 2] - g[2, 0])
    to_z = x * (g[0, 2] + g[2, 0]) + y * (g[1, 2] + g[2, 1]) + w * (g[1, 0] - g[0, 1])
    to_x -= 2.0 * x * (g[1, 1] + g[2, 2])
    to_y -= 2.0 * y * (g[0, 0] + g[2, 2])
    to_z -= 2.0 * z * (g[0, 0] + g[1, 1])
    return 2.0 * wp.vec4(to_w, to_x, to_y, to_z)


@wp.func
def bearing_of(point: wp.vec3, lens: Lens, flat: wp.bool) -> wp.vec2:
    """(x/z, y/z) at which the Jacobian is taken; held near the picture for 3D Gaussians, see MARGIN."""
    bearing = wp.vec2(point[0] / point[2], point[1] / point[2])
    if flat:
        return bearing
    margin = 0.5 * MARGIN * wp.cw_div(lens.size, lens.focal)
    low = -wp.cw_div(lens.centre, lens.focal) - margin
    high = wp.cw_div(lens.size - lens.centre, lens.focal) + margin
    return wp.min(wp.max(bearing, low), high)


@wp.func
def axes_of(turned: wp.mat33, bearing: wp.vec2, z: wp.float32, lens: Lens) -> mat23:
    """Axes of a Gaussian on the picture, pixels: the Jacobian of the projection times its axes, columns."""
    ax, ay = lens.focal[0] / z, lens.focal[1] / z
    bx, by = bearing[0], bearing[1]
    return mat23(
        ax * (turned[0, 0] - bx * turned[2, 0]),
        ax * (turned[0, 1] - bx * turned[2, 1]),
        ax * (turned[0, 2] - bx * turned[2, 2]),
        ay * (turned[1, 0] - by * turned[2, 0]),
        ay * (turned[1, 1] - by * turned[2, 1]),
        ay * (turned[1, 2] - by * turned[2, 2]),
    )


@wp.func
def covariance_of(axes: mat23) -> wp.vec3:
    """(xx, xy, yy) of a 3D Gaussian on the picture, low-passed."""
    xx, xy, yy = LOW_PASS, wp.float32(0.0), LOW_PASS
    for k in range(3):
        xx += axes[0, k] * axes[0, k]
        xy += axes[0, k] * axes[1, k]
        yy += axes[1, k] * axes[1, k]
    return wp.vec3(xx, xy, yy)


@wp.func
def frame_of(covariance: wp.vec3) -> wp.vec4:
    """Inverse of the Cholesky factor, (00, 01, 10, 11); 01 is zero."""
    l00 = wp.sqrt(covariance[0])
    l10 = covariance[1] / l00
    l11 = wp.sqrt(wp.max(covariance[2] - l10 * l10, 0.5 * LOW_PASS))
    return wp.vec4(1.0 / l00, 0.0, -l10 / (l00 * l11), 1.0 / l11)


@wp.func
def frame_backward(covariance: wp.vec3, frame: wp.vec4, g: wp.vec4) -> wp.vec3:
    """Gradient to the covariance (xx, xy, yy) for the gradient `g` of `frame_of`."""
    a, c = frame[0], frame[3]
    l10 = covariance[1] * a
    to_l00 = -g[0] * a * a + g[2] * l10 * c * a * a
    to_l11 = -g[3] * c * c + g[2] * l10 * a * c * c
    to_l10 = -g[2] * a * c - to_l11 * l10 * c
    to_l00 -= to_l10 * l10 * a
    return wp.vec3(0.5 * to_l00 * a, to_l10 * a, 0.5 * to_l11 * c)


@wp.func
def flat_frame_of(axes: mat23) -> wp.vec4:
    """Inverse of the first two axes, (00, 01, 10, 11)."""
    det = axes[0, 0] * axes[1, 1] - axes[0, 1] * axes[1, 0]
    if wp.abs(det) < EDGE_ON:
        det = wp.where(det < 0.0, -EDGE_ON, EDGE_ON)
    return wp.vec4(axes[1, 1] / det, -axes[0, 1] / det, -axes[1, 0] / det, axes[0, 0] / det)


@wp.func
def slant_of(frame: wp.vec4, turned: wp.mat33, z: wp.float32) -> wp.vec2:
    """How the depth of a flat Gaussian changes over the picture, see the head of this file."""
    u, v = -turned[2, 0] / z, -turned[2, 1] / z
    return wp.vec2(u * frame[0] + v * frame[2], u * frame[1] + v * frame[3])


@wp.func
def radius_of(covariance: wp.vec3) -> wp.int32:
    """Three standard deviations along the longest axis, whole pixels."""
    middle = 0.5 * (covariance[0] + covariance[2])
    half = 0.5 * (covariance[0] - covariance[2])
    longest = middle + wp.sqrt(half * half + covariance[1] * covariance[1])
    return wp.int32(wp.min(wp.ceil(3.0 * wp.sqrt(longest)), 1.0e6))


@wp.kernel
def project(
    first: wp.int32,
    means: wp.array[wp.vec3],
    rotations: wp.array[wp.vec4],
    scales: wp.array[wp.vec3],
    poses: wp.array[wp.mat44],
    intrinsics: wp.array[wp.mat33],
    width: wp.int32,
    height: wp.int32,
    near: wp.float32,
    flat: wp.bool,
    centres: wp.array[wp.vec2],
    frames: wp.array[wp.vec4],
    slants: wp.array[wp.vec2],
    depths: wp.array[wp.float32],
    radii: wp.array[wp.int32],
) -> None:
    """One Gaussian on one picture; what is not in front of the camera or not finite stays at radius zero."""
    i = first + wp.tid()
    view = i / means.shape[0]
    n = i - view * means.shape[0]
    lens = lens_of(intrinsics[view], width, height, near)
    point = wp.transform_point(poses[view], means[n])
    length = wp.length(rotations[n])
    if point[2] > near and length > 0.0 and wp.isfinite(point) and wp.isfinite(length):
        z = point[2]
        shape = matrix_of(rotations[n] / length) @ wp.diag(scales[n])
        turned = turn_of(poses[view]) @ shape
        axes = axes_of(turned, bearing_of(point, lens, flat), z, lens)
        covariance = covariance_of(axes)
        frame = frame_of(covariance)
        if flat:
            frame = flat_frame_of(axes)
            slants[i] = slant_of(frame, turned, z)
        centre = wp.cw_mul(lens.focal, wp.vec2(point[0] / z, point[1] / z)) + lens.centre
        if wp.isfinite(frame) and wp.isfinite(centre):
            centres[i] = centre
            frames[i] = frame
            depths[i] = z
            radii[i] = radius_of(covariance)


@wp.struct
class Pull:
    """Gradients in the frame of the camera."""

    point: wp.vec3
    turned: wp.mat33
    """To the axes of the Gaussian, columns."""


@wp.func
def axes_backward(g: mat23, axes: mat23, turned: wp.mat33, point: wp.vec3, lens: Lens, flat: wp.bool) -> Pull:
    """Gradients for the gradient `g` of `axes_of`."""
    pull = Pull()
    z = point[2]
    bearing = bearing_of(point, lens, flat)
    to_bearing = wp.vec2()
    for i in range(2):
        slope = lens.focal[i] / z
        for k in range(3):
            pull.turned[i, k] = slope * g[i, k]
            pull.turned[2, k] = pull.turned[2, k] - slope * bearing[i] * g[i, k]
            to_bearing[i] = to_bearing[i] - slope * turned[2, k] * g[i, k]
            pull.point[2] = pull.point[2] - axes[i, k] * g[i, k] / z
    for i in range(2):
        if bearing[i] == point[i] / z:
            pull.point[i] = pull.point[i] + to_bearing[i] / z
            pull.point[2] = pull.point[2] - to_bearing[i] * bearing[i] / z
    return pull


@wp.func
def flat_backward(
    to_frame: wp.vec4, to_slant: wp.vec2, frame: wp.vec4, slant: wp.vec2, axes: mat23, turned: wp.mat33,
    point: wp.vec3, lens: Lens,
) -> Pull:  # fmt: skip
    """Gradients for those of `flat_frame_of` and `slant_of`."""
    z = point[2]
    f = wp.mat22(frame[0], frame[1], frame[2], frame[3])
    tilt = wp.vec2(turned[2, 0], turned[2, 1])
    to_f = wp.mat22(to_frame[0], to_frame[1], to_frame[2], to_frame[3]) - wp.outer(tilt, to_slant) / z
    to_axes = mat23()
    det = axes[0, 0] * axes[1, 1] - axes[0, 1] * axes[1, 0]
    if wp.abs(det) >= EDGE_ON:
        inner = -wp.transpose(f) @ to_f @ wp.transpose(f)
        to_axes = mat23(inner[0, 0], inner[0, 1], 0.0, inner[1, 0], inner[1, 1], 0.0)
    pull = axes_backward(to_axes, axes, turned, point, lens, True)
    to_tilt = -(f @ to_slant) / z
    pull.turned[2, 0] = pull.turned[2, 0] + to_tilt[0]
    pull.turned[2, 1] = pull.turned[2, 1] + to_tilt[1]
    pull.point[2] = pull.point[2] - wp.dot(to_slant, slant) / z
    return pull


@wp.func
def solid_backward(
    to_frame: wp.vec4, frame: wp.vec4, axes: mat23, turned: wp.mat33, point: wp.vec3, lens: Lens
) -> Pull:
    """Gradients for that of `frame_of` and `covariance_of`."""
    g = frame_backward(covariance_of(axes), frame, to_frame)
    to_axes = mat23()
    for k in range(3):
        to_axes[0, k] = 2.0 * g[0] * axes[0, k] + g[1] * axes[1, k]
        to_axes[1, k] = 2.0 * g[2] * axes[1, k] + g[1] * axes[0, k]
    return axes_backward(to_axes, axes, turned, point, lens, False)


@wp.kernel
def project_backward(
    first: wp.int32,
    means: wp.array[wp.vec3],
    rotations: wp.array[wp.vec4],
    scales: wp.array[wp.vec3],
    poses: wp.array[wp.mat44],
    intrinsics: wp.array[wp.mat33],
    width: wp.int32,
    height: wp.int32,
    near: wp.float32,
    flat: wp.bool,
    frames: wp.array[wp.vec4],
    slants: wp.array[wp.vec2],
    radii: wp.array[wp.int32],
    grad_centres: wp.array[wp.vec2],
    grad_frames: wp.array[wp.vec4],
    grad_slants: wp.array[wp.vec2],
    grad_depths: wp.array[wp.float32],
    to_means: wp.array[wp.vec3],
    to_rotations: wp.array[wp.vec4],
    to_scales: wp.array[wp.vec3],
) -> None:
    """Gradients of one Gaussian, summed over all pictures."""
    n = first + wp.tid()
    q = wp.normalize(rotations[n])
    turn = matrix_of(q)
    shape = turn @ wp.diag(scales[n])
    to_shape = wp.mat33()
    to_mean = wp.vec3()
    seen = wp.bool(False)
    for view in range(poses.shape[0]):
        i = view * means.shape[0] + n
        if radii[i] > 0:
            seen = True
            lens = lens_of(intrinsics[view], width, height, near)
            pose = turn_of(poses[view])
            point = wp.transform_point(poses[view], means[n])
            turned = pose @ shape
            axes = axes_of(turned, bearing_of(point, lens, flat), point[2], lens)
            pull = Pull()
            if flat:
                pull = flat_backward(
                    grad_frames[i], grad_slants[i], frames[i], slants[i], axes, turned, point, lens
                )
            else:
                pull = solid_backward(grad_frames[i], frames[i], axes, turned, point, lens)
            slope = wp.cw_mul(grad_centres[i], lens.focal) / point[2]
            along = (slope[0] * point[0] + slope[1] * point[1]) / point[2]
            to_point = pull.point + wp.vec3(slope[0], slope[1], grad_depths[i] - along)
            to_mean += wp.transpose(pose) @ to_point
            to_shape += wp.transpose(pose) @ pull.turned
    if not seen:
        return
    to_means[n] = to_mean
    spread = wp.cw_mul(turn, to_shape)
    to_scales[n] = wp.vec3(
        spread[0, 0] + spread[1, 0] + spread[2, 0],
        spread[0, 1] + spread[1, 1] + spread[2, 1],
        spread[0, 2] + spread[1, 2] + spread[2, 2],
    )
    to_q = matrix_backward(q, to_shape @ wp.diag(scales[n]))
    to_rotations[n] = (to_q - q * wp.dot(q, to_q)) / wp.length(rotations[n])

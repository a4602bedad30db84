"""Colors that depend on the direction of view, as real spherical harmonics of degree 0 to 3."""

# mypy: disable-error-code="index, misc, operator"
# (bodies of kernels are Warp's language)

from typing import Any

import torch
import warp as wp
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from maquette.core.errors import ConfigError
from maquette.kernels.launch import MODULE_OPTIONS, array, launch_rows

wp.set_module_options(MODULE_OPTIONS)

MAX_DEGREE = 3

vec16 = wp.types.vector(16, wp.float32)

# Sloan 2008, "Stupid spherical harmonics tricks", appendix A2
A0 = wp.constant(0.28209479177387814)
A1 = wp.constant(0.4886025119029199)
A2, B2, C2 = (
    wp.constant(1.0925484305920792),
    wp.constant(0.31539156525252005),
    wp.constant(0.5462742152960396),
)
A3, B3 = wp.constant(0.5900435899266435), wp.constant(2.890611442640554)
C3, D3, E3 = wp.constant(0.4570457994644658), wp.constant(0.3731763325901154), wp.constant(1.445305721320277)


def sh_colors(
    coefficients: Float[Tensor, "N K 3"],
    means: Float[Tensor, "N 3"],
    camera_positions: Float[Tensor, "B 3"],
    degree: int,
) -> Float[Tensor, "B N 3"]:
    """Colors of Gaussians as B cameras see them: 0.5 + sum of coefficients times harmonics, not below zero.

    The order, signs and the 0.5 are those of Kerbl et al. 2023 and of the files of this field. Differentiable
    to the coefficients and the means. Coefficients beyond `degree` are not used.

    Args:
        coefficients: K >= (degree + 1)^2 for each channel.
        means: Centres, world frame.
        camera_positions: World frame.
        degree: 0 to 3.

    Raises:
        ConfigError: the degree is not 0 to 3, or there are too few coefficients.
    """
    if not 0 <= degree <= MAX_DEGREE:
        raise ConfigError("sh_colors.degree", degree, f"0 to {MAX_DEGREE}")
    count = (degree + 1) ** 2
    if coefficients.ndim != 3 or coefficients.shape[1] < count or coefficients.shape[2] != 3:
        raise ConfigError("sh_colors.coefficients", tuple(coefficients.shape), f"(N, K >= {count}, 3)")
    if means.shape != (coefficients.shape[0], 3):
        raise ConfigError("sh_colors.means", tuple(means.shape), f"({coefficients.shape[0]}, 3)")
    colors: Tensor = _Colors.apply(coefficients.float(), means.float(), camera_positions.float(), count)
    return colors


class _Colors(Function):
    """(coefficients, means) -> colors."""

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, means: Tensor, eyes: Tensor, count: int) -> Tensor:
        colors = means.new_empty(len(eyes), len(means), 3)
        args = [array(coefficients, wp.vec3), array(means, wp.vec3), array(eyes, wp.vec3), count]
        launch_rows(shine, len(eyes) * len(means), [*args, array(colors.view(-1, 3), wp.vec3)], means.device)
        ctx.save_for_backward(coefficients, means, eyes, colors)
        ctx.count = count
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        coefficients, means, eyes, colors = ctx.saved_tensors
        to_coefficients = torch.zeros_like(coefficients, memory_format=torch.contiguous_format)
        to_means = torch.zeros_like(means, memory_format=torch.contiguous_format)
        args = [array(coefficients, wp.vec3), array(means, wp.vec3), array(eyes, wp.vec3), ctx.count]
        args += [array(colors, wp.vec3), array(grads[0], wp.vec3)]
        outputs = [array(to_coefficients, wp.vec3), array(to_means, wp.vec3)]
        launch_rows(shine_backward, len(means), [*args, *outputs], means.device)
        return to_coefficients, to_means, None, None


@wp.func
def harmonics(d: wp.vec3) -> vec16:
    """All harmonics of a unit direction, degree after degree."""
    x, y, z = d[0], d[1], d[2]
    xx, yy, zz = x * x, y * y, z * z
    return vec16(
        A0,
        -A1 * y, A1 * z, -A1 * x,
        A2 * x * y, -A2 * y * z, B2 * (2.0 * zz - xx - yy), -A2 * x * z, C2 * (xx - yy),
        -A3 * y * (3.0 * xx - yy), B3 * x * y * z, -C3 * y * (4.0 * zz - xx - yy),
        D3 * z * (2.0 * zz - 3.0 * xx - 3.0 * yy),
        -C3 * x * (4.0 * zz - xx - yy), E3 * z * (xx - yy), -A3 * x * (xx - 3.0 * yy),
    )  # fmt: skip


@wp.func
def harmonics_backward(d: wp.vec3, g: vec16) -> wp.vec3:
    """Gradient to the direction for the gradient `g` of its harmonics."""
    x, y, z = d[0], d[1], d[2]
    xx, yy, zz = x * x, y * y, z * z
    to_x = -A1 * g[3] + A2 * (y * g[4] - z * g[7]) + 2.0 * x * (C2 * g[8] - B2 * g[6])
    to_y = -A1 * g[1] + A2 * (x * g[4] - z * g[5]) - 2.0 * y * (C2 * g[8] + B2 * g[6])
    to_z = A1 * g[2] - A2 * (y * g[5] + x * g[7]) + 4.0 * B2 * z * g[6]
    to_x += (
        -6.0 * A3 * x * y * g[9] + B3 * y * z * g[10] + 2.0 * C3 * x * y * g[11] - 6.0 * D3 * x * z * g[12]
    )
    to_x += -C3 * (4.0 * zz - 3.0 * xx - yy) * g[13] + 2.0 * E3 * x * z * g[14] - 3.0 * A3 * (xx - yy) * g[15]
    to_y += -3.0 * A3 * (xx - yy) * g[9] + B3 * x * z * g[10] - C3 * (4.0 * zz - xx - 3.0 * yy) * g[11]
    to_y += -6.0 * D3 * y * z * g[12] + 2.0 * C3 * x * y * g[13] - 2.0 * E3 * y * z * g[14]
    to_y += 6.0 * A3 * x * y * g[15]
    to_z += B3 * x * y * g[10] - 8.0 * C3 * z * (y * g[11] + x * g[13]) + E3 * (xx - yy) * g[14]
    to_z += D3 * (6.0 * zz - 3.0 * xx - 3.0 * yy) * g[12]
    return wp.vec3(to_x, to_y, to_z)


@wp.kernel
def shine(
    first: wp.int32,
    coefficients: wp.array2d[wp.vec3],
    means: wp.array[wp.vec3],
    eyes: wp.array[wp.vec3],
    count: wp.int32,
    colors: wp.array[wp.vec3],
) -> None:
    """The color of one Gaussian for one camera."""
    i = first + wp.tid()
    view = i / means.shape[0]
    n = i - view * means.shape[0]
    basis = harmonics(wp.normalize(means[n] - eyes[view]))
    color = wp.vec3(0.5, 0.5, 0.5)
    for k in range(count):
        color += basis[k] * coefficients[n, k]
    for c in range(3):
        if color[c] < 0.0:
            color[c] = 0.0
    colors[i] = color


@wp.kernel
def shine_backward(
    first: wp.int32,
    coefficients: wp.array2d[wp.vec3],
    means: wp.array[wp.vec3],
    eyes: wp.array[wp.vec3],
    count: wp.int32,
    colors: wp.array2d[wp.vec3],
    grad_colors: wp.array2d[wp.vec3],
    to_coefficients: wp.array2d[wp.vec3],
    to_means: wp.array[wp.vec3],
) -> None:
    """Gradients of one Gaussian, summed over the cameras; a color without gradient changes nothing."""
    n = first + wp.tid()
    to_mean = wp.vec3()
    for view in range(eyes.shape[0]):
        grad = grad_colors[view, n]
        for c in range(3):
            if colors[view, n][c] == 0.0:
                grad[c] = 0.0
        ray = means[n] - eyes[view]
        distance = wp.length(ray)
        if wp.length_sq(grad) > 0.0 and distance > 0.0:
            direction = ray / distance
            basis = harmonics(direction)
            to_basis = vec16()
            for k in range(count):
                to_coefficients[n, k] = to_coefficients[n, k] + basis[k] * grad
                to_basis[k] = wp.dot(coefficients[n, k], grad)
            along = harmonics_backward(direction, to_basis)
            to_mean += (along - wp.dot(along, direction) * direction) / distance
    to_means[n] = to_mean

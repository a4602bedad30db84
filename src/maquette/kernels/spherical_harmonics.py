"""Colors that depend on the direction of view, as real spherical harmonics of degree 0 to 3."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from maquette.core.errors import ConfigError

MAX_DEGREE = 3


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
    if coefficients.ndim != 3 or coefficients.shape[1] < count:
        raise ConfigError("sh_colors.coefficients", tuple(coefficients.shape), f"(N, K >= {count}, 3)")
    if degree == 0:
        constant = (0.28209479177387814 * coefficients[:, 0] + 0.5).clamp(min=0.0)
        return constant.expand(len(camera_positions), -1, -1)
    directions = normalize(means - camera_positions[:, None], dim=-1)
    basis = harmonics(directions, degree)
    return (torch.einsum("bnk,nkc->bnc", basis, coefficients[:, :count]) + 0.5).clamp(min=0.0)


def harmonics(directions: Float[Tensor, "*N 3"], degree: int) -> Float[Tensor, "*N K"]:
    """Real spherical harmonics of unit directions, degree after degree (Sloan 2013, appendix A2)."""
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, 0.28209479177387814)]
    if degree > 0:
        basis += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree > 1:
        xx, yy, zz = x * x, y * y, z * z
        basis += [1.0925484305920792 * x * y, -1.0925484305920792 * y * z]
        basis += [0.31539156525252005 * (2 * zz - xx - yy), -1.0925484305920792 * x * z]
        basis += [0.5462742152960396 * (xx - yy)]
    if degree > 2:
        basis += [-0.5900435899266435 * y * (3 * xx - yy), 2.890611442640554 * x * y * z]
        basis += [-0.4570457994644658 * y * (4 * zz - xx - yy)]
        basis += [0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy)]
        basis += [-0.4570457994644658 * x * (4 * zz - xx - yy), 1.445305721320277 * z * (xx - yy)]
        basis += [-0.5900435899266435 * x * (xx - 3 * yy)]
    return torch.stack(basis, dim=-1)

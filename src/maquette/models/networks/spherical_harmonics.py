"""Real spherical harmonics of directions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maquette.core.errors import ConfigError

MAX_DEGREE = 4


def spherical_harmonics(d: Float[Tensor, "N 3"], degree: int) -> Float[Tensor, "N K"]:
    """The first `degree` bands (degree^2 values) at unit directions, orthonormal over the sphere.

    Real form with the Condon-Shortley phase, band by band (Sloan 2008, Stupid Spherical Harmonics Tricks,
    appendix A2).
    """
    x, y, z = d.unbind(dim=-1)
    bands = [torch.full_like(x, 0.28209479177387814)]
    if degree > 1:
        bands += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree > 2:
        bands += _second_band(x, y, z)
    if degree > 3:
        bands += _third_band(x, y, z)
    return torch.stack(bands, dim=-1)


def _second_band(x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    return [
        1.0925484305920792 * x * y,
        -1.0925484305920792 * y * z,
        0.31539156525252005 * (3.0 * z * z - 1.0),
        -1.0925484305920792 * x * z,
        0.5462742152960396 * (x * x - y * y),
    ]


def _third_band(x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    return [
        -0.5900435899266435 * y * (3.0 * x * x - y * y),
        2.890611442640554 * x * y * z,
        -0.4570457994644658 * y * (5.0 * z * z - 1.0),
        0.3731763325901154 * z * (5.0 * z * z - 3.0),
        -0.4570457994644658 * x * (5.0 * z * z - 1.0),
        1.445305721320277 * z * (x * x - y * y),
        -0.5900435899266435 * x * (x * x - 3.0 * y * y),
    ]


class SphericalHarmonics(nn.Module):
    """Encodes directions given as (d + 1) / 2 in [0, 1]^3, the range that all encodings share."""

    def __init__(self, n_input_dims: int, degree: int) -> None:
        super().__init__()
        if n_input_dims != 3 or not 1 <= degree <= MAX_DEGREE:
            raise ConfigError("encoding.degree", degree, f"1 to {MAX_DEGREE}, for directions in 3D")
        self.degree = degree
        self.n_output_dims = degree**2

    def forward(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N K"]:
        """Harmonics of the directions 2x - 1."""
        return spherical_harmonics(x * 2.0 - 1.0, self.degree)

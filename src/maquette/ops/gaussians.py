"""A cloud of anisotropic 3D Gaussians (Kerbl et al. 2023, "3D Gaussian Splatting"), and its arithmetic."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

SH_CONSTANT = 0.5 / math.sqrt(math.pi)
"""The spherical harmonic of degree 0, the same in all directions."""
MOST_COPIES = 51
"""`relocated` treats more copies of one Gaussian like this many (Kheradmand et al. 2024 do the same)."""
FLAT = 1e-6
"""Standard deviation of a flat Gaussian across its plane, world units."""
THIN = (0.02, 0.05)
"""Smallest scale divided by the geometric mean of all three: a Gaussian is flat up to the first number, and a
body from the second on."""
NEIGHBOURS = 3
"""The nearest points that say how large a Gaussian begins."""


@dataclass(eq=False)
class Gaussians:
    """N Gaussians in the world frame; all values as they act, not as they are optimised."""

    means: Float[Tensor, "N 3"]
    """World positions of their middles."""
    rotations: Float[Tensor, "N 4"]
    """Unit quaternions w x y z: from the frame of a Gaussian's axes to the world."""
    scales: Float[Tensor, "N 3"]
    """Standard deviation along each axis, world units, positive."""
    opacities: Float[Tensor, " N"]
    """Alpha in the middle, in [0, 1]."""
    sh: Float[Tensor, "N K 3"]
    """Colour as K = (degree + 1)^2 coefficients of real spherical harmonics; one half is added to the sum."""

    @property
    def n(self) -> int:
        """Number of Gaussians."""
        return int(self.means.shape[0])

    @property
    def sh_degree(self) -> int:
        """Degree of the colour: 0 is the same from all sides."""
        return math.isqrt(int(self.sh.shape[1])) - 1

    @property
    def colors(self) -> Float[Tensor, "N 3"]:
        """Colour in [0, 1], the mean over all directions."""
        return sh_to_colors(self.sh[:, 0]).clamp(0.0, 1.0)

    def replace(self, **changes: Any) -> Gaussians:
        """A copy with some fields exchanged; tensors that are not exchanged are shared."""
        return dataclasses.replace(self, **changes)

    def to(self, device: torch.device | str) -> Gaussians:
        """The same Gaussians with all tensors on `device`."""
        return Gaussians(**{one.name: getattr(self, one.name).to(device) for one in dataclasses.fields(self)})

    def detach(self) -> Gaussians:
        """The same values, without gradients."""
        return Gaussians(**{one.name: getattr(self, one.name).detach() for one in dataclasses.fields(self)})

    def __getitem__(self, rows: Any) -> Gaussians:
        """Some of them: a slice, indices, or a mask."""
        return Gaussians(**{one.name: getattr(self, one.name)[rows] for one in dataclasses.fields(self)})


def colors_to_sh(colors: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """The coefficient of degree 0 that shows a colour."""
    return (colors - 0.5) / SH_CONSTANT


def sh_to_colors(coefficients: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """The colour that a coefficient of degree 0 shows, not clamped."""
    return coefficients * SH_CONSTANT + 0.5


def rotation_matrices(quaternions: Float[Tensor, "*N 4"]) -> Float[Tensor, "*N 3 3"]:
    """Rotations of quaternions w x y z of any length above zero."""
    w, x, y, z = F.normalize(quaternions, dim=-1).unbind(dim=-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def shape_matrices(
    rotations: Float[Tensor, "*N 4"], scales: Float[Tensor, "*N 3"]
) -> Float[Tensor, "*N 3 3"]:
    """R S: turns a standard normal vector into an offset from the middle of a Gaussian, world units."""
    return rotation_matrices(rotations) * scales[..., None, :]


def covariances(rotations: Float[Tensor, "*N 4"], scales: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3 3"]:
    """R S S^T R^T (Kerbl et al. 2023, eq. 6), squared world units."""
    factor = shape_matrices(rotations, scales)
    return factor @ factor.mT


def peak_densities(opacities: Float[Tensor, " N"], scales: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
    """Density (per world unit) in the middle of bodies of Gaussian shape that stop light as the splats do.

    A ray through the middle of a Gaussian of width s meets the optical depth `sqrt(2 pi) s density`, which
    makes the alpha o if it is `-ln(1 - o)`. For a Gaussian of three widths, s is their geometric mean; for a
    flat one it is its thickness, so that a ray across its plane meets that depth. In between (`THIN`) the
    logarithm of s goes from one to the other.
    """
    mean, thickness = scales.log().mean(dim=-1), scales.amin(dim=-1).log()
    flat, body = (math.log(share) for share in THIN)
    width = torch.lerp(thickness, mean, ((thickness - mean - flat) / (body - flat)).clamp(0.0, 1.0)).exp()
    return -torch.log1p(-opacities.clamp(max=0.995)) / (math.sqrt(2.0 * math.pi) * width)


def spacing(points: Float[Tensor, "N 3"], chunk: int = 2**10) -> Float[Tensor, " N"]:
    """Root of the mean squared distance from each point to its three nearest others, world units."""
    if len(points) <= NEIGHBOURS:
        return torch.full_like(points[:, 0], 0.1)
    squared = []
    for part in torch.split(points, chunk):
        near = torch.cdist(part, points, compute_mode="donot_use_mm_for_euclid_dist")
        squared.append(near.topk(NEIGHBOURS + 1, largest=False).values[:, 1:].square().mean(dim=-1))
    return torch.cat(squared).clamp(min=1e-7).sqrt()


def relocated(
    opacities: Float[Tensor, " N"], scales: Float[Tensor, "N 3"], copies: Int[Tensor, " N"]
) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]:
    """Opacity and scales of each of `copies` equal Gaussians at one place that look like the one they
    replace (Kheradmand et al. 2024, "3D Gaussian Splatting as Markov Chain Monte Carlo", eq. 9).
    """
    copies = copies.clamp(1, MOST_COPIES)
    opacity = 1.0 - (1.0 - opacities).pow(1.0 / copies)
    total = torch.zeros_like(opacities)
    for i in range(1, int(copies.max()) + 1 if len(copies) else 1):
        terms = [math.comb(i - 1, k) * (-1) ** k / math.sqrt(k + 1) * opacity ** (k + 1) for k in range(i)]
        total = total + torch.stack(terms).sum(dim=0) * (i <= copies)
    return opacity, scales * (opacities / total.clamp(min=1e-12))[:, None]


def points_of_depth(
    depth: Float[Tensor, "B H W 1"], intrinsics: Float[Tensor, "B 3 3"], c2w: Float[Tensor, "B 4 4"]
) -> Float[Tensor, "B H W 3"]:
    """World points that pixel centres show at a depth along the viewing axis; `c2w` of an OpenCV camera."""
    return (
        view_rays(intrinsics, *depth.shape[1:3]) * depth @ c2w[:, None, :3, :3].mT + c2w[:, None, None, :3, 3]
    )


def view_rays(intrinsics: Float[Tensor, "B 3 3"], height: int, width: int) -> Float[Tensor, "B H W 3"]:
    """Directions through pixel centres in the frame of an OpenCV camera, of length one along its axis."""
    rows = torch.arange(height, device=intrinsics.device, dtype=intrinsics.dtype) + 0.5
    columns = torch.arange(width, device=intrinsics.device, dtype=intrinsics.dtype) + 0.5
    y = (rows[None, :] - intrinsics[:, 1, 2, None]) / intrinsics[:, 1, 1, None]
    x = (columns[None, :] - intrinsics[:, 0, 2, None]) / intrinsics[:, 0, 0, None]
    shape = (len(intrinsics), height, width)
    x, y = x[:, None, :].expand(shape), y[:, :, None].expand(shape)
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


def normals_of_points(
    points: Float[Tensor, "B H W 3"], camera_positions: Float[Tensor, "B 3"]
) -> Float[Tensor, "B H W 3"]:
    """Unit normals, turned to the camera, of a surface given by a world point for each pixel.

    From central differences between neighbouring pixels, one-sided at the border of the picture.
    """
    down, right = (_slope(points, axis) for axis in (1, 2))
    normals = F.normalize(torch.linalg.cross(down, right, dim=-1), dim=-1)
    towards = camera_positions[:, None, None] - points
    facing = (normals * towards).sum(dim=-1, keepdim=True)
    return torch.where(facing < 0, -normals, normals)


def _slope(points: Float[Tensor, "B H W 3"], axis: int) -> Float[Tensor, "B H W 3"]:
    size = points.shape[axis]
    if size < 2:
        return torch.zeros_like(points)
    ahead = (torch.arange(size, device=points.device) + 1).clamp(max=size - 1)
    behind = (torch.arange(size, device=points.device) - 1).clamp(min=0)
    return points.index_select(axis, ahead) - points.index_select(axis, behind)

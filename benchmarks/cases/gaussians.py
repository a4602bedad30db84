"""Cases of Gaussian splatting: a ball of 10 000 seen at 256 x 256, and larger ones.

Twin: PyTorch over tiles of 16 x 16 pixels, each blending the depth-sorted Gaussians whose box touches it.
"""

import importlib.util
from collections.abc import Callable

import gaussian_twins as twins
import torch
from measure import Case
from torch import Tensor
from torch.nn.functional import normalize

from maquette.kernels.gaussian_tiles import SIDE, Grid, bin_splats
from maquette.kernels.gaussians import Cameras, Primitive, Splats, pack, project_gaussians, sh_colors, splat
from maquette.models.networks.spherical_harmonics import spherical_harmonics

Cloud = list[Tensor]
"""Means, rotations, scales, opacities, colors."""


def cases(repeats_scale: float) -> list[Case]:
    """The first is the one that the target is about, its Gaussians as large as training starts with.

    That is the mean distance to three neighbours (Kerbl et al. 2023, section 5.1): 0.055 for 10 000.
    """
    small, large = max(10, int(10_000 * repeats_scale)), max(10, int(20_000 * repeats_scale))
    return [
        case("Gaussians, 3D, 256 x 256", ball(small, 0.05), 256, "3d"),
        case("Gaussians, 3D, small, 256 x 256", ball(small, 0.02), 256, "3d"),
        case("Gaussians, 3D, 512 x 512", ball(large, 0.03), 512, "3d"),
        case("Gaussians, 2D, 256 x 256", ball(small, 0.05), 256, "2d"),
        harmonics(small),
    ]


def ball(n: int, size: float) -> Cloud:
    """Gaussians all through a ball of radius one, standard deviations around `size`."""
    torch.manual_seed(0)
    means = normalize(torch.randn(n, 3), dim=-1) * torch.rand(n, 1) ** (1 / 3)
    scales = size * torch.exp(0.4 * torch.randn(n, 3))
    cloud = [means, torch.randn(n, 4), scales, 0.05 + 0.9 * torch.rand(n), torch.rand(n, 3)]
    return [tensor.requires_grad_() for tensor in cloud]


def case(name: str, cloud: Cloud, side: int, primitive: Primitive) -> Case:
    """Color, depth and opacity forward, and backward to the five inputs."""
    w2c, intrinsics = torch.eye(4)[None].clone(), torch.eye(3)[None].clone()
    w2c[:, 2, 3] = 2.8
    intrinsics[:, :2] = torch.tensor([[1.2 * side, 0.0, 0.5 * side], [0.0, 1.2 * side, 0.5 * side]])
    weights = torch.rand(1, side, side, 3)

    def train(color: Tensor, depth: Tensor, opacity: Tensor) -> None:
        loss = (
            (color * weights).sum() + (depth * weights[..., :1]).sum() + (opacity * weights[..., 1:2]).sum()
        )
        torch.autograd.grad(loss, cloud)

    def kernel() -> None:
        out: Splats = splat(*cloud, w2c, intrinsics, side, side, primitive=primitive)
        train(out.color, out.depth, out.opacity)

    def twin() -> None:
        out = twins.splat(*cloud, w2c, intrinsics, side, side, primitive=primitive)
        train(out["color"], out["depth"], out["opacity"])

    count = entries(cloud, Cameras(w2c, intrinsics, side, side, 0.01), primitive == "2d")
    return Case(
        name=f"{name}, {len(cloud[0])}",
        pairs=count * SIDE * SIDE,
        kernel=kernel,
        twin=twin,
        bytes=4 * (3 * 13 * count + 2 * 5 * side * side),
        rival=gsplat(cloud, w2c, intrinsics, side, train) if primitive == "3d" else None,
    )


def gsplat(
    cloud: Cloud, w2c: Tensor, intrinsics: Tensor, side: int, train: Callable[[Tensor, Tensor, Tensor], None]
) -> Callable[[], None] | None:
    """The same pictures by gsplat, where it is installed (its own cut-offs)."""
    if importlib.util.find_spec("gsplat") is None:
        return None
    from gsplat import rasterization

    def run() -> None:
        drawn, opacity, _ = rasterization(*cloud, w2c, intrinsics, side, side, render_mode="RGB+D")
        train(drawn[..., :3], drawn[..., 3:], opacity)

    return run


@torch.no_grad()
def entries(cloud: Cloud, cameras: Cameras, flat: bool) -> int:
    """How many tiles each Gaussian reaches, in all; every pixel of such a tile is a pair."""
    projected = project_gaussians(*cloud[:3], cameras, flat)
    grid = Grid(1, cameras.height, cameras.width)
    lists = bin_splats(pack(projected, cloud[3]), cloud[4], projected.radii.flatten(), grid, flat)
    return len(lists.splats)


def harmonics(n: int) -> Case:
    """Twin: polynomials of the directions, stacked, and a sum of products."""
    torch.manual_seed(0)
    inputs = [(0.3 * torch.randn(n, 16, 3)).requires_grad_(), torch.randn(n, 3).requires_grad_()]
    eyes, weights = torch.tensor([[3.0, 0.0, 0.0]]), torch.rand(1, n, 3)

    def kernel() -> None:
        torch.autograd.grad((sh_colors(*inputs, eyes, 3) * weights).sum(), inputs)

    def twin() -> None:
        basis = spherical_harmonics(normalize(inputs[1] - eyes, dim=-1), 4)
        colors = (torch.einsum("nk,nkc->nc", basis, inputs[0]) + 0.5).clamp(min=0.0)
        torch.autograd.grad((colors * weights[0]).sum(), inputs)

    return Case(
        name=f"spherical harmonics, degree 3, {n}",
        pairs=16 * n,
        kernel=kernel,
        twin=twin,
        bytes=4 * n * (3 * 48 + 3 * 3 + 3 * 3),
    )

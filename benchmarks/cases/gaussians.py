"""Cases of Gaussian splatting: a ball of 10 000 seen at 256 x 256, and larger ones.

Twin: PyTorch over tiles of 16 x 16 pixels, each blending the depth-sorted Gaussians whose box touches it.
"""

import gaussian_twins as twins
import torch
from measure import Case
from torch import Tensor

from maquette.kernels.gaussian_tiles import SIDE, Grid, bin_splats
from maquette.kernels.gaussians import Cameras, Primitive, Splats, pack, project_gaussians, splat

Cloud = list[Tensor]
"""Means, rotations, scales, opacities, colors."""


def cases(repeats_scale: float) -> list[Case]:
    """The first is the one that the target is about."""
    small, large = max(10, int(10_000 * repeats_scale)), max(10, int(50_000 * repeats_scale))
    return [
        case("Gaussians, 3D, 256 x 256", ball(small, 0.02), 256, "3d"),
        case("Gaussians, 3D, larger, 256 x 256", ball(small, 0.05), 256, "3d"),
        case("Gaussians, 3D, 512 x 512", ball(large, 0.02), 512, "3d"),
        case("Gaussians, 2D, 256 x 256", ball(small, 0.02), 256, "2d"),
    ]


def ball(n: int, size: float) -> Cloud:
    """Gaussians all through a ball of radius one, standard deviations around `size`."""
    torch.manual_seed(0)
    means = torch.nn.functional.normalize(torch.randn(n, 3), dim=-1) * torch.rand(n, 1) ** (1 / 3)
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

    pairs = pairs_of(cloud, Cameras(w2c, intrinsics, side, side, 0.01), primitive == "2d")
    return Case(name=f"{name}, {len(cloud[0])}", pairs=pairs, kernel=kernel, twin=twin)


@torch.no_grad()
def pairs_of(cloud: Cloud, cameras: Cameras, flat: bool) -> int:
    """Gaussians times pixels, over all tiles and those that reach them: what the twin evaluates."""
    projected = project_gaussians(*cloud[:3], cameras, flat)
    grid = Grid(1, cameras.height, cameras.width)
    lists = bin_splats(pack(projected, cloud[3]), projected.radii.flatten(), grid, flat)
    return len(lists.splats) * SIDE * SIDE

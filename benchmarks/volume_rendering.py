"""Volume rendering of packed samples against PyTorch on a dense grid of samples, side by side.

The scene is a ball in a box; plain PyTorch has a row of samples for each ray and cannot leave out what is
empty.
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measure import compare, machine
from torch import Tensor

from maquette.kernels.composite import composite, importance_resample
from maquette.kernels.occupancy import march_rays

AABB = torch.tensor([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
STEP = 3.0**0.5 * 2.0 / 512.0


def main() -> None:
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    origins, directions = camera_rays(args.height, args.width)
    print(f"{machine()}; {args.height} x {args.width} rays, step {STEP:.4f}")
    for radius in (0.25, 0.5, 0.9):
        grid = ball(args.cells, radius)
        count = len(march_rays(origins, directions, grid, AABB, STEP))
        compare(
            f"samples, {grid.float().mean():.0%} of the cells occupied, {count} samples",
            {
                "PyTorch, every step looked up": lambda g=grid: dense_samples(origins, directions, g),
                "maquette": lambda g=grid: march_rays(origins, directions, g, AABB, STEP, key=1),
            },
            args.repeats,
        )
    compare_composite(origins, directions, ball(args.cells, 0.5), args.repeats)
    compare_resampling(len(origins), args.repeats)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--cells", type=int, default=32, help="cells of the occupancy grid, a side")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


def camera_rays(height: int, width: int) -> tuple[Tensor, Tensor]:
    y, z = torch.meshgrid(torch.linspace(-0.4, 0.4, width), torch.linspace(0.4, -0.4, height), indexing="xy")
    directions = F.normalize(torch.stack([-torch.ones_like(y), y, z], -1).view(-1, 3), dim=-1)
    return torch.tensor([[3.0, 0.0, 0.0]]).expand_as(directions).contiguous(), directions


def ball(cells: int, radius: float) -> Tensor:
    axis = (torch.arange(cells) + 0.5) / cells * 2.0 - 1.0
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0) < radius


def dense_samples(origins: Tensor, directions: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    low, high = AABB[:3], AABB[3:]
    a, b = (low - origins) / directions, (high - origins) / directions
    enter, leave = torch.minimum(a, b).amax(-1), torch.maximum(a, b).amin(-1)
    t = enter[:, None] + (torch.arange(512) + 0.5) * STEP
    points = origins[:, None] + t[..., None] * directions[:, None]
    cells = ((points - low) / (high - low) * grid.shape[0]).long().clamp(0, grid.shape[0] - 1)
    keep = grid[cells[..., 0], cells[..., 1], cells[..., 2]] & (t < leave[:, None])
    return keep.nonzero()[:, 0], t[keep]


def compare_composite(origins: Tensor, directions: Tensor, grid: Tensor, repeats: int) -> None:
    samples = march_rays(origins, directions, grid, AABB, STEP)
    sigma = torch.rand(len(samples)).mul_(5.0).requires_grad_()
    values = torch.rand(len(samples), 3).requires_grad_()
    packed = samples.packed.long()
    rank = torch.arange(len(samples)) - packed[samples.ray_indices, 0]
    slot = samples.ray_indices * int(packed[:, 1].max()) + rank
    shape = (len(origins), int(packed[:, 1].max()))
    delta, middle = samples.t_ends - samples.t_starts, samples.t_middles

    def padded() -> None:
        tau = torch.zeros(shape).view(-1).index_add(0, slot, sigma * delta).view(shape)
        weights = torch.exp(tau - tau.cumsum(-1)) * -torch.expm1(-tau)
        packed_weights = weights.view(-1)[slot]
        blended = torch.zeros(len(origins), 3).index_add(
            0, samples.ray_indices, packed_weights[:, None] * values
        )
        depth = torch.zeros(len(origins)).index_add(0, samples.ray_indices, packed_weights * middle)
        torch.autograd.grad(blended.sum() + weights.sum() + depth.sum(), [sigma, values])

    def ours() -> None:
        blended, opacity, depth, _ = composite(
            sigma, values, samples.t_starts, samples.t_ends, samples.packed, 0.0
        )
        torch.autograd.grad(blended.sum() + opacity.sum() + depth.sum(), [sigma, values])

    title = f"compositing, forward + backward, {len(samples)} samples"
    compare(title, {"PyTorch, padded to the longest ray": padded, "maquette": ours}, repeats)


def compare_resampling(rays: int, repeats: int) -> None:
    bins, weights = torch.linspace(0.0, 1.0, 65).repeat(rays, 1), torch.rand(rays, 64)

    def torch_resample() -> Tensor:
        cdf = F.pad((weights + 1e-5).cumsum(-1), (1, 0))
        u = (torch.arange(65) + 0.5) / 65 * cdf[:, -1:]
        right = torch.searchsorted(cdf, u).clamp(1, 64)
        below, above = cdf.gather(1, right - 1), cdf.gather(1, right)
        low, high = bins.gather(1, right - 1), bins.gather(1, right)
        return low + (u - below) / (above - below) * (high - low)

    def ours() -> Tensor:
        return importance_resample(bins, weights, 64, None)

    tasks: dict[str, Callable[[], object]] = {"PyTorch, searchsorted": torch_resample, "maquette": ours}
    compare(f"importance resampling, {rays} rays, 64 of 64", tasks, repeats)


if __name__ == "__main__":
    main()

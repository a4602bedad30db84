"""Hash grid: our kernels against the fastest plain PyTorch we know, side by side."""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from measure import compare, machine
from torch import Tensor

from maquette.kernels.hash_grid import HashGridSpec, hash_encode

Encode = Callable[[Tensor, Tensor], Tensor]


def main() -> None:
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    spec = HashGridSpec(
        n_levels=args.levels,
        n_features=args.features,
        log2_hashmap_size=args.log2_rows,
        per_level_scale=(args.finest / 16) ** (1 / max(1, args.levels - 1)),
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(args.points, 3, generator=generator)
    table = torch.rand(spec.n_rows, spec.n_features, generator=generator).sub_(0.5).requires_grad_()
    twin, ours = FlatTwin(spec), partial(hash_encode, spec=spec)
    print(f"{machine()}; {args.points} points, {spec.n_levels} levels, {spec.n_features} features, ", end="")
    print(f"2^{spec.log2_hashmap_size} rows a level, {spec.n_rows} rows")
    begin = time.perf_counter()
    difference = (ours(x, table) - twin(x, table)).abs().max().item()
    print(f"largest difference {difference:.1e}; first call of both {time.perf_counter() - begin:.1f} s")
    for title, task in (("forward", forward), ("forward + backward to the table", backward)):
        functions = {"PyTorch": bind(task, twin, x, table), "maquette": bind(task, ours, x, table)}
        compare(title, functions, args.repeats)
    if args.normals:
        encoders = {
            "PyTorch": twin,
            "maquette": ours,
            "maquette, normals_only": partial(ours, normals_only=True),
        }
        functions = {name: bind(normals, encode, x, table) for name, encode in encoders.items()}
        compare("features and normals, forward + backward of both", functions, args.repeats)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=131072)
    parser.add_argument("--levels", type=int, default=16)
    parser.add_argument("--features", type=int, default=2)
    parser.add_argument("--log2-rows", type=int, default=19, help="rows of a hashed level, as a power of two")
    parser.add_argument("--finest", type=int, default=4096, help="cells a side of the finest level")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--normals", action="store_true", help="also gradients trained through normals")
    return parser.parse_args()


class FlatTwin:
    """Hash grid on one flat table: all levels and corners at once, one `index_select`, no Python loop."""

    def __init__(self, spec: HashGridSpec) -> None:
        side = torch.tensor(spec.resolutions)
        self.spec, self.side, self.mask = spec, side, (1 << spec.log2_hashmap_size) - 1
        self.first = torch.tensor(spec.offsets[:-1])[:, None]
        self.dense = ((side + 1) ** 3 <= self.mask + 1)[:, None]
        self.strides = torch.stack([torch.ones_like(side), side + 1, (side + 1) ** 2], -1)[:, None]
        self.corners = torch.tensor([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)])
        self.primes = torch.tensor([1, 2654435761, 805459861])

    def __call__(self, x: Tensor, table: Tensor) -> Tensor:
        position = x[:, None] * self.side[:, None]
        cell = torch.minimum(position.detach().long(), self.side[:, None] - 1)
        part = (position - cell)[:, :, None]
        corner = cell[:, :, None] + self.corners
        hashed = corner * self.primes
        hashed = (hashed[..., 0] ^ hashed[..., 1] ^ hashed[..., 2]) & self.mask
        index = torch.where(self.dense, (corner * self.strides).sum(-1), hashed) + self.first
        weights = torch.where(self.corners.bool(), part, 1.0 - part).prod(-1)
        rows = table.index_select(0, index.flatten()).view(*index.shape, -1)
        return (weights[..., None] * rows).sum(2).flatten(1)


def forward(encode: Encode, x: Tensor, table: Tensor) -> None:
    with torch.no_grad():
        encode(x, table)


def backward(encode: Encode, x: Tensor, table: Tensor) -> None:
    table.grad = None
    features = encode(x, table)
    features.backward(torch.ones_like(features))


def normals(encode: Encode, x: Tensor, table: Tensor) -> None:
    table.grad = None
    x = x.detach().requires_grad_()
    features = encode(x, table)
    (slope,) = torch.autograd.grad(features.sum(), x, create_graph=True)
    (slope.square().sum() + features.square().sum()).backward()


def bind(
    task: Callable[[Encode, Tensor, Tensor], None], encode: Encode, x: Tensor, table: Tensor
) -> Callable[[], None]:
    return lambda: task(encode, x, table)


if __name__ == "__main__":
    main()

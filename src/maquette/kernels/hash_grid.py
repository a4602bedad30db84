"""Multiresolution hash encoding of positions, with gradients of the first and second order.

Müller et al. 2022, "Instant Neural Graphics Primitives with a Multiresolution Hash Encoding": level l has
floor(base_resolution * per_level_scale^l) cells a side (eq. 2) and a row of features at each corner of a
cell; the row is looked up by index where the level fits into 2^log2_hashmap_size rows, by the hash of eq. 4
where it does not.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
import warp as wp
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from maquette.core.errors import ConfigError
from maquette.kernels.hash_grid_kernels import Run, gather_kernel, scatter_kernel, slope_kernel
from maquette.kernels.launch import array, launch, parts_for, prepare, run_parallel, slabs

ROW_ALIGNMENT = 8
"""Levels start at a multiple of this row, which for two features is a cache line."""


@dataclass(frozen=True, kw_only=True)
class HashGridSpec:
    """Sizes of a hash grid; all tables of its levels lie in one tensor of `n_rows` rows."""

    n_levels: int = 16
    """Number of resolutions."""
    n_features: int = 2
    """Features a row."""
    log2_hashmap_size: int = 19
    """A level has at most 2 to this power rows."""
    base_resolution: int = 16
    """Cells a side of the coarsest level."""
    per_level_scale: float = 1.447269237440378
    """Growth of the resolution from one level to the next."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be addressed."""
        for key, low, high in (("n_levels", 1, 64), ("n_features", 1, 32), ("log2_hashmap_size", 3, 28)):
            if not low <= getattr(self, key) <= high:
                raise ConfigError(key, getattr(self, key), f"an integer from {low} to {high}")
        if self.base_resolution < 1:
            raise ConfigError("base_resolution", self.base_resolution, "an integer >= 1")
        if self.per_level_scale < 1.0:
            raise ConfigError("per_level_scale", self.per_level_scale, "a number >= 1")

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """Cells a side, of each level (eq. 2); the small term forgives a scale that was rounded."""
        sides = (self.base_resolution * self.per_level_scale**level for level in range(self.n_levels))
        return tuple(math.floor(side * (1.0 + 1e-9)) for side in sides)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First row of each level, and the number of rows at the end."""
        edges = [0]
        for side in self.resolutions:
            rows = min(1 << self.log2_hashmap_size, (side + 1) ** 3)
            edges.append(edges[-1] + math.ceil(rows / ROW_ALIGNMENT) * ROW_ALIGNMENT)
        return tuple(edges)

    @property
    def n_rows(self) -> int:
        """Rows of the table."""
        return self.offsets[-1]

    @property
    def output_dim(self) -> int:
        """Features of an encoded position."""
        return self.n_levels * self.n_features


def hash_encode(
    x: Float[Tensor, "N 3"],
    table: Float[Tensor, "T F"],
    spec: HashGridSpec,
    active_levels: int | None = None,
    normals_only: bool = False,
) -> Float[Tensor, "N LF"]:
    """Encode positions in [0, 1]^3; the features of a level lie side by side, coarsest level first.

    Differentiable with respect to `x` and `table`, and the gradient with respect to `x` again with respect
    to everything, so that normals from `torch.autograd.grad(..., create_graph=True)` train the table.
    Levels from `active_levels` on give zeros and get no gradient. A position outside has the value of the
    nearest border.

    With `normals_only` the positions get a gradient only where a graph of it is made (`create_graph=True`),
    that is for normals that train. The backward pass of the loss then leaves out the gradient to positions,
    which nobody reads there: a quarter of the time of features and normals with their backward pass (106 ms
    against 77 ms, 32 768 points, 8 levels, one core; `benchmarks/hash_grid.py --normals`).

    Raises:
        ConfigError: the shape of `x` or `table` does not fit.
    """
    if x.ndim != 2 or x.shape[1] != 3:
        raise ConfigError("hash_encode.x", tuple(x.shape), "the shape (N, 3)")
    if table.shape != (spec.n_rows, spec.n_features):
        raise ConfigError("hash_encode.table", tuple(table.shape), f"({spec.n_rows}, {spec.n_features})")
    active = spec.n_levels if active_levels is None else max(0, min(active_levels, spec.n_levels))
    return _encode(table.float(), _Query(x.float(), spec, active, normals_only))


@dataclass(frozen=True)
class _Query:
    """One question to the grid. Its positions are no input of `_Gather`, see there."""

    x: Tensor
    spec: HashGridSpec
    active: int
    normals_only: bool

    def wants_positions(self) -> bool:
        """Whether a backward pass that runs now computes gradients to positions."""
        return not self.normals_only or torch.is_grad_enabled()


class _Gather(Function):
    """Encoding as a function of the table alone: table -> features.

    The path to the positions is `_Attach`, so that asking for normals does not compute the table's
    gradient: torch decides by node what has to run.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, query: _Query) -> Tensor:
        ctx.query = query
        return _gather(query, None, table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Scatter.apply(ctx.query.x, grad, ctx.query), None


class _Attach(Function):
    """Encoding as a function of the positions: (features, x, table) -> the same features."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, x: Tensor, table: Tensor, query: _Query) -> Tensor:
        ctx.save_for_backward(x, table)
        ctx.query = query
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.query.wants_positions():
            return grad, None, None, None
        return grad, _Slope.apply(*ctx.saved_tensors, grad, ctx.query), None, None


class _Scatter(Function):
    """Gradient to the table: the transpose of the encoding, (x, gradient of features) -> gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grad: Tensor, query: _Query) -> Tensor:
        ctx.save_for_backward(x, grad)
        ctx.query = query
        return _scatter(query, None, grad)

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        x, grad = ctx.saved_tensors
        need_x, need_grad = ctx.needs_input_grad[:2]
        to_x = _Slope.apply(x, incoming, grad, ctx.query) if need_x else None
        to_grad = _encode(incoming, ctx.query) if need_grad else None
        return to_x, to_grad, None


class _Slope(Function):
    """Gradient to positions: (x, table, gradient of features) -> gradient of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, grad: Tensor, query: _Query) -> Tensor:
        ctx.save_for_backward(table, grad)
        ctx.query = query
        return _slope(query, None, table, grad)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor | None, ...]:
        table, grad = ctx.saved_tensors
        need_x, need_table, need_grad = ctx.needs_input_grad[:3]
        to_x = _slope(ctx.query, along, table, grad) if need_x and ctx.query.wants_positions() else None
        to_table = _scatter(ctx.query, along, grad) if need_table else None
        to_grad = _gather(ctx.query, along, table) if need_grad else None
        return to_x, to_table, to_grad, None


def _encode(table: Tensor, query: _Query) -> Tensor:
    features: Tensor = _Gather.apply(table, query)
    if query.x.requires_grad:
        features = _Attach.apply(features, query.x, table, query)
    return features


def _gather(query: _Query, along: Tensor | None, table: Tensor) -> Tensor:
    """Features (N, L F), or their derivative along a vector per point."""
    spec, points = query.spec, query.x.shape[0]
    shape = (spec.n_levels, points, spec.n_features)
    out = table.new_zeros(shape) if query.active < spec.n_levels else table.new_empty(shape)
    kernel = gather_kernel(spec.n_features, along is not None)
    _launch(kernel, _cut_levels_and_points, query, [*_common(query, along), _rows(table), _rows(out)])
    return out.transpose(0, 1).reshape(points, spec.output_dim)


def _scatter(query: _Query, along: Tensor | None, grad: Tensor) -> Tensor:
    """Gradient (T, F) of the table for the gradient (N, L F) of the features."""
    spec = query.spec
    out = grad.new_zeros(spec.n_rows, spec.n_features)
    by_level = _by_level(grad, spec)
    kernel = scatter_kernel(spec.n_features, along is not None)
    _launch(kernel, _cut_levels, query, [*_common(query, along), _rows(by_level), _rows(out)])
    return out


def _slope(query: _Query, along: Tensor | None, table: Tensor, grad: Tensor) -> Tensor:
    """Gradient (N, 3) of <grad, features>, or its Hessian times a vector per point."""
    out = torch.zeros_like(query.x, memory_format=torch.contiguous_format)
    by_level = _by_level(grad, query.spec)
    kernel = slope_kernel(query.spec.n_features, along is not None)
    args = [*_common(query, along), _rows(table), _rows(by_level), array(out, wp.vec3)]
    _launch(kernel, _cut_points, query, args)
    return out


def _common(query: _Query, along: Tensor | None) -> list[Any]:
    levels = array(_level_table(query.spec, query.x.device), wp.vec4i)
    return [levels, array(query.x, wp.vec3), array(query.x if along is None else along, wp.vec3)]


def _rows(tensor: Tensor) -> Any:
    return array(tensor, wp.types.vector(tensor.shape[-1], wp.float32))


def _by_level(grad: Tensor, spec: HashGridSpec) -> Tensor:
    return grad.float().view(-1, spec.n_levels, spec.n_features).transpose(0, 1).contiguous()


@lru_cache(maxsize=32)
def _level_table(spec: HashGridSpec, device: torch.device) -> Tensor:
    """Per level: cells a side, first row, whether it is dense, and the mask of its hash."""
    size = 1 << spec.log2_hashmap_size
    sides = zip(spec.resolutions, spec.offsets, strict=False)
    rows = [(side, first, int((side + 1) ** 3 <= size), size - 1) for side, first in sides]
    return torch.tensor(rows, dtype=torch.int32, device=device)


Piece = tuple[int, int, int, int]
"""First level, number of levels, first point, last point: the work of one job on a CPU."""


def _cut_levels_and_points(points: int, active: int) -> list[Piece]:
    """No two pieces share a level and a point: for outputs made for each level and point."""
    parts = min(parts_for(points * active), points)
    pieces = slabs(points, math.ceil(parts / active))
    return [(level, 1, first, first + count) for level in range(active) for first, count in pieces]


def _cut_levels(points: int, active: int) -> list[Piece]:
    """No two pieces share a level: for outputs added up over points."""
    return [(level, 1, 0, points) for level in range(active)]


def _cut_points(points: int, active: int) -> list[Piece]:
    """No two pieces share a point: for outputs added up over levels."""
    return [(0, active, first, first + count) for first, count in slabs(points, parts_for(points))]


def _launch(kernel: Any, cut: Callable[[int, int], list[Piece]], query: _Query, args: list[Any]) -> None:
    """On a CPU one job a piece: sums have one order whatever the number of threads. On a GPU atomics."""
    points, active, device = query.x.shape[0], query.active, query.x.device
    if points == 0 or active == 0:
        return
    prepare(kernel, device)
    if device.type != "cpu":
        launch(kernel, (active, points), [_run(0, 0, points, 1), *args], device)
        return
    run_parallel([partial(_run_piece, kernel, piece, args, device) for piece in cut(points, active)])


def _run_piece(kernel: Any, piece: Piece, args: list[Any], device: torch.device) -> None:
    level, levels, first, last = piece
    launch(kernel, (levels, 1), [_run(level, first, last, last - first), *args], device)


def _run(level: int, first: int, last: int, length: int) -> Any:
    run = Run()
    run.level, run.first, run.last, run.length = level, first, last, length
    return run

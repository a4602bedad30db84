"""Sums over pixels into rows that many pixels share: gradients of vertices and of texels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from maquette.kernels.launch import Slab, array, launch, prepare, run_parallel, slabs

PIECES = 8
"""Jobs on a CPU, each with sums of its own; fixed, so that the order of adding does not depend on threads."""
MOST_PRIVATE = 2**25
"""Private sums never hold more numbers than this."""


def add_up(
    kernel: Any,
    views: int,
    pixels: int,
    args: Sequence[Any],
    like: Tensor,
    dtype: Any = None,
    shared: bool = False,
) -> Tensor:
    """What the pixels of all views add to tensors of the shape of `like`.

    The kernel is launched over pixels with the arguments (first pixel, row of the first pixel, pixels a row,
    sums, *args): pixel `i` adds to row `row + (i - first) / pixels a row` of the sums with `wp.atomic_add`,
    which on a CPU is a plain addition; no two jobs share a row there.

    Args:
        kernel: see above.
        views: number of pictures.
        pixels: number of pixels of a picture.
        args: further arguments.
        like: (B, ...) where each view has sums of its own, otherwise (...); float32.
        dtype: Warp's type of an entry of the sums, over their last axis.
        shared: whether all views add to the same sums.
    """
    device, shape = like.device, like.shape if shared else like.shape[1:]
    most = max(1, MOST_PRIVATE // max(1, math.prod(shape)))
    if device.type != "cpu":
        sums = like.new_zeros(1 if shared else views, *shape)
        per_row = views * pixels if shared else pixels
        launch(kernel, views * pixels, [0, 0, per_row, array(sums, dtype), *args], device)
        return sums[0] if shared else sums
    if shared:
        sums = _add_up_pieces(kernel, slabs(views * pixels, min(PIECES, most)), args, like, shape, dtype)
        return sums.sum(dim=0)
    parts = slabs(pixels, min(-(-PIECES // views), max(1, most // views)))
    pieces = [(view * pixels + first, count) for view in range(views) for first, count in parts]
    sums = _add_up_pieces(kernel, pieces, args, like, shape, dtype)
    return sums if len(parts) == 1 else sums.reshape(views, len(parts), *shape).sum(dim=1)


def _add_up_pieces(
    kernel: Any, pieces: list[Slab], args: Sequence[Any], like: Tensor, shape: Sequence[int], dtype: Any
) -> Tensor:
    device = like.device
    sums = like.new_zeros(len(pieces), *shape)
    prepare(kernel, device)
    jobs = [
        partial(launch, kernel, count, [first, row, count, array(sums, dtype), *args], device)
        for row, (first, count) in enumerate(pieces)
    ]
    run_parallel(jobs)
    return sums

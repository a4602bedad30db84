"""Launches over the pixels of pictures.

Most pixels of a picture show nothing, and a thread for each would cost more than looking at it. So the
kernels launched here take (first pixel, pixels a thread, ...): thread t does the run of pixels that begins
at `first + t * run`. On a GPU a run is one pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from maquette.core.device import is_gpu
from maquette.kernels.launch import Slab, array, launch, parts_for, prepare, run_parallel, slabs

SMALLEST = 4096
"""Pixels that are worth a job of their own on a CPU."""
MOST_PRIVATE = 2**25
"""Sums of all jobs together never hold more numbers than this, or than one job needs."""


def over_pixels(kernel: Any, pixels: int, args: Sequence[Any], device: torch.device) -> None:
    """Launch a kernel with the arguments (first, run, *args); pixels must not write to the same place."""
    if pixels == 0:
        return
    if is_gpu(device):
        launch(kernel, pixels, [0, 1, *args], device)
        return
    prepare(kernel, device)
    parts = slabs(pixels, parts_for(pixels, SMALLEST))
    run_parallel([partial(launch, kernel, 1, [first, count, *args], device) for first, count in parts])


def add_up(
    kernel: Any,
    views: int,
    pixels: int,
    args: Sequence[Any],
    like: Tensor,
    dtype: Any = None,
    shared: bool = False,
) -> Tensor:
    """Launch a kernel whose pixels add to rows that they share: gradients of vertices and of texels.

    The kernel has the arguments (first, run, row, per_row, sums, *args): pixel `i` adds to row
    `row + (i - first) / per_row` of the sums with `wp.atomic_add`, which on a CPU is a plain addition; no two
    jobs share a row there.

    Args:
        kernel: see above.
        views: number of pictures.
        pixels: number of pixels of a picture.
        args: further arguments.
        like: (B, ...) where each view has sums of its own, otherwise (...); float32.
        dtype: Warp's type of an entry of the sums, over their last axis.
        shared: whether all views add to the same sums.
    """
    shape = like.shape if shared else like.shape[1:]
    if views * pixels == 0 or like.numel() == 0:
        return torch.zeros_like(like)
    if is_gpu(like.device):
        sums = like.new_zeros(1 if shared else views, *shape)
        per_row = views * pixels if shared else pixels
        launch(kernel, views * pixels, [0, 1, 0, per_row, array(sums, dtype), *args], like.device)
        return sums[0] if shared else sums
    pieces = _pieces(views, pixels, shared, max(1, MOST_PRIVATE // like.numel()))
    sums = like.new_zeros(len(pieces), *shape)
    prepare(kernel, like.device)
    jobs = [
        partial(launch, kernel, 1, [first, count, row, count, array(sums, dtype), *args], like.device)
        for row, (first, count) in enumerate(pieces)
    ]
    run_parallel(jobs)
    if shared:
        return sums[0] if len(pieces) == 1 else sums.sum(dim=0)
    return sums if len(pieces) == views else sums.reshape(views, -1, *shape).sum(dim=1)


def _pieces(views: int, pixels: int, shared: bool, most: int) -> list[Slab]:
    """One job a thread; jobs end where a view ends, unless all views share their sums.

    `most` limits how many jobs have sums for the same things.
    """
    threads = torch.get_num_threads()
    if shared:
        return slabs(views * pixels, max(1, min(threads, most, views * pixels // SMALLEST)))
    parts = slabs(pixels, max(1, min(-(-threads // views), most, pixels // SMALLEST)))
    return [(view * pixels + first, count) for view in range(views) for first, count in parts]

"""Where tensors become Warp arrays and a launch becomes work for threads.

A Warp launch on a CPU runs serially and releases the interpreter lock, so a launch is cut into slabs that
run on `torch.get_num_threads()` threads. On a GPU it is one launch on torch's current stream. Modules with
hand-written gradients call `wp.set_module_options(MODULE_OPTIONS)` first: Warp then generates no adjoints,
which halves the time of the first compilation.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import torch
import warp as wp
from torch import Tensor

from maquette.core.device import kernel_device
from maquette.core.paths import cache_dir

MODULE_OPTIONS: dict[str, Any] = {"enable_backward": False, "max_unroll": 8}

Slab = tuple[int, int]
"""First index and number of indices."""


def array(tensor: Tensor, dtype: Any = None) -> Any:
    """The tensor's own memory as a Warp array descriptor, without gradient.

    A tensor that is not contiguous is copied, so a kernel must write only into tensors made for it. `dtype`
    may be a Warp vector; its components are the tensor's last axis.
    """
    return wp.from_torch(tensor.detach().contiguous(), dtype=dtype, requires_grad=False, return_ctype=True)


def launch(kernel: Any, dim: int | Sequence[int], args: Sequence[Any], device: torch.device) -> None:
    """Launch `kernel` once over `dim` (serial on a CPU)."""
    name = kernel_device(device)
    start()
    stream = None if device.type == "cpu" else wp.stream_from_torch(device)
    wp.launch(kernel, dim=dim, inputs=list(args), device=name, stream=stream)


def launch_rows(
    kernel: Any, rows: int, args: Sequence[Any], device: torch.device, smallest: int = 256
) -> None:
    """Launch `kernel` over `rows` independent rows, on every thread torch may use.

    The first argument of the kernel is an int, the row of its thread zero; `args` follow it. Rows must not
    write to the same place. A slab is never smaller than `smallest` rows.
    """
    if rows == 0:
        return
    parts = slabs(rows, parts_for(rows, smallest) if device.type == "cpu" else 1)
    prepare(kernel, device)
    run_parallel([partial(launch, kernel, count, [first, *args], device) for first, count in parts])


def parts_for(rows: int, smallest: int = 256) -> int:
    """Into how many slabs to cut `rows`: four a thread, so that an uneven load still balances."""
    threads = torch.get_num_threads()
    return 1 if threads == 1 else max(1, min(4 * threads, rows // smallest))


def slabs(total: int, parts: int) -> list[Slab]:
    """`total` indices cut into `parts` runs, in order, whose sizes differ by at most one."""
    edges = [total * part // parts for part in range(parts + 1)]
    return [(low, high - low) for low, high in pairwise(edges) if high > low]


def run_parallel(jobs: Sequence[Callable[[], Any]]) -> None:
    """Run the jobs on `torch.get_num_threads()` threads and wait; the first exception is raised here."""
    threads = min(torch.get_num_threads(), len(jobs))
    if threads <= 1:
        for job in jobs:
            job()
        return
    for done in [_pool(threads).submit(job) for job in jobs]:
        done.result()


def prepare(kernel: Any, device: torch.device) -> None:
    """Compile the kernel's module for `device` unless that is done; call it before launching from threads."""
    start()
    if device.type == "cpu":
        kernel.module.load(kernel_device(device), block_dim=1)


@lru_cache(maxsize=1)
def start() -> None:
    """Initialise Warp quietly; compiled kernels go to maquette's cache unless WARP_CACHE_PATH is set."""
    wp.config.log_level = wp.LOG_ERROR
    if not os.environ.get("WARP_CACHE_PATH"):
        wp.config.kernel_cache_dir = str(cache_dir() / "kernels")
    with _native_errors_hidden():
        wp.init()


@contextmanager
def _native_errors_hidden() -> Iterator[None]:
    """Warp complains about a missing GPU driver on stderr; `maquette doctor` is the place to say so."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="maquette-kernel")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)

"""Times and peak memory of functions measured in turn, as a table of ratios."""

import ctypes
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from maquette.core.device import resident_memory


@dataclass(frozen=True, kw_only=True)
class Case:
    """A kernel beside its plain PyTorch twin; both calls do the same work, forward + backward.

    Tensors are made on torch's default device (`benchmarks/kernels.py --device` sets it).
    """

    name: str
    pairs: int
    """Primitive-pixel pairs, or elements, that one call works through."""
    kernel: Callable[[], object]
    twin: Callable[[], object]
    bytes: int | None = None
    """Memory that one call of the kernel cannot avoid to read or write; gives the bandwidth on a GPU."""
    rival: Callable[[], object] | None = None
    """The same work by the package of the field that only runs on a GPU, where it can be imported."""


def compare(title: str, functions: Mapping[str, Callable[[], object]], repeats: int) -> None:
    """Print the best time of each function and its ratio to the first one's; rounds are interleaved."""
    for function in functions.values():
        function()
    rounds = [[seconds(function) for function in functions.values()] for _ in range(repeats)]
    best = [min(times) for times in zip(*rounds, strict=True)]
    print(f"\n{title}")
    print(f"  {'':34s} {'best ms':>9s} {'times faster':>13s} {'peak MiB':>9s}")
    for (name, function), taken in zip(functions.items(), best, strict=True):
        print(f"  {name:34s} {1e3 * taken:9.2f} {best[0] / taken:13.1f} {peak_mib(function):>9s}")


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def cpu_seconds(function: Callable[[], object]) -> float:
    """Time of one call: with one thread the process's own, so that other programs do not count."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    begin = clock()
    function()
    return clock() - begin


def peak_mib(function: Callable[[], object]) -> str:
    """Most memory the process took above its least during a call (sampled each half ms; Linux only)."""
    if resident_memory() is None:
        return "n/a"
    ctypes.CDLL(None).malloc_trim(0)
    seen, done = [resident_memory()], threading.Event()

    def watch() -> None:
        while not done.wait(5e-4):
            seen.append(resident_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    function()
    done.set()
    watcher.join()
    return f"{1024 * (max(seen) - min(seen)):.0f}"


def machine() -> str:
    """What the numbers were measured with."""
    return f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), CPU"

"""Every kernel against its plain PyTorch twin, forward + backward, side by side in one run.

    python benchmarks/kernels.py [--only NAME ...] [--device cpu] [--scale 1.0]
    python benchmarks/kernels.py --compile

The cases are in benchmarks/cases/*.py; each file has `cases(repeats_scale: float) -> list[Case]`, where the
argument scales the sizes of the problems. Twins are those of the tests.
"""

import argparse
import importlib
import importlib.util
import json
import os
import pkgutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
import warp as wp
from measure import Case, machine, peak_mib
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import maquette.kernels
from maquette.kernels.launch import start

CASES = Path(__file__).parent / "cases"
TESTS = Path(__file__).parents[1] / "tests" / "kernels"
console = Console(width=140)


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    torch.set_default_device(args.device)
    if args.compile_here:
        print(json.dumps(compile_seconds(args.device)))
    elif args.compile:
        console.print(compile_table(args.device))
    else:
        console.print(speed_table(load_cases(args.scale, args.only), args))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="cases with this in their name")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes of all problems (1)")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the median counts (3)")
    parser.add_argument("--no-twin", action="store_true", help="the kernels only")
    parser.add_argument("--compile", action="store_true", help="time to compile all kernels, nothing cached")
    parser.add_argument("--compile-here", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def load_cases(scale: float, only: list[str]) -> list[Case]:
    """Cases of all files; with `only`, those that have one of these words in their name or their file's."""
    sys.path[:0] = [str(TESTS), str(CASES)]
    found = []
    for path in sorted(CASES.glob("*.py")):
        cases = load_file(path)(scale)
        found += [c for c in cases if not only or any(word in f"{path.stem} {c.name}" for word in only)]
    return found


def load_file(path: Path) -> Callable[[float], list[Case]]:
    """The function `cases` of a file that is in no package."""
    spec = importlib.util.spec_from_file_location(f"benchmark_cases_{path.stem}", path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[[float], list[Case]] = module.cases
    return function


def speed_table(cases: list[Case], args: argparse.Namespace) -> Table:
    """One row a case: medians of interleaved rounds."""
    table = Table(box=SIMPLE, title=f"{machine()}; device {args.device}; median of {args.repeats}")
    on_gpu = args.device != "cpu"
    headings = ["case", "pairs", "kernel ms", "twin ms", "ratio", "ns a pair", "kernel MiB", "twin MiB"]
    for heading in headings + (["GB/s", "rival ms", "rival ratio"] if on_gpu else []):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for case in cases:
        with console.status(case.name):
            table.add_row(*row(case, args, on_gpu))
    return table


def row(case: Case, args: argparse.Namespace, on_gpu: bool) -> list[str]:
    """The measured case, as text."""
    tasks = {"kernel": case.kernel}
    tasks |= {} if args.no_twin else {"twin": case.twin}
    tasks |= {"rival": case.rival} if case.rival and on_gpu else {}
    for task in tasks.values():
        task()
    rounds = [{name: device_seconds(task) for name, task in tasks.items()} for _ in range(args.repeats)]
    taken = {name: statistics.median(times[name] for times in rounds) for name in tasks}
    memory = {name: device_peak(task) for name, task in tasks.items()}
    kernel, twin, rival = taken["kernel"], taken.get("twin"), taken.get("rival")
    cells = [case.name, f"{case.pairs:,}", milliseconds(kernel), milliseconds(twin), ratio(twin, kernel)]
    cells += [f"{1e9 * kernel / max(1, case.pairs):.2f}", memory["kernel"], memory.get("twin", "-")]
    bandwidth = f"{1e-9 * case.bytes / kernel:.0f}" if case.bytes else "-"
    return cells + ([bandwidth, milliseconds(rival), ratio(rival, kernel)] if on_gpu else [])


def milliseconds(taken: float | None) -> str:
    return "-" if taken is None else f"{1e3 * taken:.2f}"


def ratio(other: float | None, kernel: float) -> str:
    return "-" if other is None else f"{other / kernel:.1f}"


def device_seconds(task: Callable[[], object]) -> float:
    """Time of a call, to the end of what it has queued on the device.

    With one thread of the CPU it is the process's own time: other programs do not count.
    """
    alone = torch.get_default_device().type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    synchronize()
    begin = clock()
    task()
    synchronize()
    return clock() - begin


def synchronize() -> None:
    if torch.get_default_device().type != "cpu":
        torch.accelerator.synchronize()


def device_peak(task: Callable[[], object]) -> str:
    """Most memory that a call takes: of the process, or of torch's allocator on a GPU."""
    if torch.get_default_device().type == "cpu":
        return peak_mib(task)
    torch.accelerator.reset_peak_memory_stats()
    before = torch.accelerator.memory_allocated()
    task()
    return f"{(torch.accelerator.max_memory_allocated() - before) / 2**20:.0f}"


def compile_table(device: str) -> Table:
    """Seconds of each module with kernels, compiled by a process of its own into an empty cache."""
    with TemporaryDirectory() as cache, console.status("compiling"):
        command = [sys.executable, __file__, "--compile-here", "--device", device]
        environment = os.environ | {"WARP_CACHE_PATH": cache}
        output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    times: dict[str, float] = json.loads(output.splitlines()[-1])
    table = Table("module", "seconds", title=f"first compilation, device {device}")
    for name, taken in sorted(times.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{taken:.2f}")
    table.add_section()
    table.add_row("all", f"{sum(times.values()):.2f}")
    return table


def compile_seconds(device: str) -> dict[str, float]:
    """Compile every kernel of `maquette.kernels`; seconds of each module.

    Kernels that are made for the sizes in use come from one call of each case.
    """
    start()
    taken: dict[str, float] = defaultdict(float)
    load = wp.Module.load

    def timed_load(module: wp.Module, *args: Any, **options: Any) -> Any:
        begin = time.perf_counter()
        result = load(module, *args, **options)
        taken[module.name.split("__locals__")[0]] += time.perf_counter() - begin
        return result

    with patch.object(wp.Module, "load", timed_load):
        for info in pkgutil.iter_modules(maquette.kernels.__path__, "maquette.kernels."):
            importlib.import_module(info.name)
            module = wp.get_module(info.name)
            if module.kernels:
                module.load(device, block_dim=1 if device == "cpu" else 256)
        for case in load_cases(scale=0.01, only=[]):
            case.kernel()
    return {name: spent for name, spent in taken.items() if spent > 1e-2}


if __name__ == "__main__":
    main()

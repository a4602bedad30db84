"""``maquette doctor``: what this machine is, what is installed, and what runs how."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from maquette.core.paths import EMBEDDED_PRIOR, assets_dir, cache_dir

OPTIONAL = {"gradio": "app", "ray": "fleet", "pxr": "usd", "open3d": "points", "wandb": "wandb"}
"""Optional packages and the extra that brings them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no options."""


def main(args: argparse.Namespace) -> int:
    """Print the tables."""
    from maquette.training.machine import machine, versions

    console = Console(highlight=False)
    console.print(_table("machine", machine()))
    console.print(_table("versions", versions()))
    console.print(_table("what runs how", _ways()))
    return 0


def _ways() -> dict[str, str]:
    from importlib.util import find_spec

    from maquette.core.device import current_device, is_gpu

    gpu = is_gpu(current_device())
    missing = [
        f"{package} (maquette[{extra}])" for package, extra in OPTIONAL.items() if find_spec(package) is None
    ]
    prior = assets_dir("prior")
    disk = shutil.disk_usage(cache_dir())
    return {
        "tensors": f"PyTorch on {current_device()}",
        "kernels": f"Warp, compiled at first use for the {'GPU (NVRTC)' if gpu else 'CPU (LLVM)'}",
        "precision": "as the recipe says" if gpu else "32 bit, whatever the recipe says",
        EMBEDDED_PRIOR: f"in the package, {_megabytes(prior):.1f} MB"
        if prior.is_dir()
        else "not in this installation",
        "cache": f"{cache_dir()} ({disk.free / 2**30:.0f} GB free)",
        "not installed": ", ".join(missing) or "nothing",
        **_libraries_of_open3d("open3d" not in " ".join(missing)),
    }


def _libraries_of_open3d(installed: bool) -> dict[str, str]:
    """A row for what its loader would not find."""
    from maquette.io.reconstruct import missing_libraries

    missing = missing_libraries() if installed else {}
    return {"open3d lacks": f"apt-get install {' '.join(missing.values())}"} if missing else {}


def _megabytes(folder: Any) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _table(title: str, rows: Mapping[str, Any]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(str(value)))
    return table

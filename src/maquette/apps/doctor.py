"""``maquette doctor``: what this machine is, what is installed, and what runs how; whether a model works."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from maquette.core.errors import UserError
from maquette.core.paths import EMBEDDED_PRIOR, assets_dir, cache_dir

OPTIONAL = {
    "gradio": ("app", "the web studio"),
    "ray": ("fleet", "many assets on many machines"),
    "pxr": ("usd", "USD files"),
    "open3d": ("points", "meshes from point clouds"),
    "wandb": ("wandb", "logs for Weights & Biases"),
    "pytorch_optimizer": ("optim", "Adan and other optimizers"),
    "sentencepiece": ("deepfloyd", "the text encoder of DeepFloyd IF"),
}
"""Optional packages, the extra that brings each, and what it is for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "--prior", metavar="MODEL", help="examine a diffusion model: an id, a folder or a checkpoint"
    )
    parser.add_argument("--prompt", metavar="TEXT", help="what to sample with --prior, in the model's words")
    parser.add_argument("--catalogue", action="store_true", help="list known models, and copies of lost ones")


def main(args: argparse.Namespace) -> int:
    """Print the tables, or examine a model; 1 if it fails."""
    console = Console(highlight=False)
    if args.prior is not None:
        return _examine(console, args.prior, args.prompt)
    if args.prompt is not None:
        raise UserError("--prompt is for examining a model.", hint="add --prior MODEL")
    for title, rows in (_catalogue() if args.catalogue else _everything()).items():
        console.print(_table(title, rows))
    return 0


def _everything() -> dict[str, Mapping[str, Any]]:
    from maquette.core.device import accelerator_facts
    from maquette.training.machine import all_versions, machine, surroundings

    return {
        "machine": machine() | surroundings(),
        "accelerator": accelerator_facts(),
        "versions": all_versions(),
        "what runs how": _ways(),
        "missing, and how to get it": _missing() or {"nothing": ""},
    }


def _catalogue() -> dict[str, Mapping[str, Any]]:
    from maquette.diffusion.catalogue import CATALOGUE

    return {"models": {name: entry.summary() for name, entry in CATALOGUE.items()}}


def _examine(console: Console, model: str, prompt: str | None) -> int:
    """A line for each experiment as soon as it is done."""
    from maquette.core.device import current_device
    from maquette.diffusion.checkup import PROMPT, Checkup
    from maquette.diffusion.denoiser import weights_dtype

    device = current_device()
    console.print(Text(f"{model} on {device}"))
    failed = []
    for found in Checkup(model, weights_dtype(device, half=True), device, prompt or PROMPT).findings():
        line = Text("pass  " if found.passed else "FAIL  ", style="green" if found.passed else "bold red")
        figures = f"{found.name:<20}{found.seconds:7.1f} s {found.memory:6.2f} GiB  {found.detail}"
        console.print(line.append(figures, style="default"), soft_wrap=True)
        failed += [] if found.passed else [found.name]
    console.print(Text(f"failed: {', '.join(failed)}" if failed else "The model works."), soft_wrap=True)
    return 1 if failed else 0


def _ways() -> dict[str, str]:
    from maquette.core.device import current_device, is_gpu

    gpu = is_gpu(current_device())
    prior = assets_dir("prior")
    disk = shutil.disk_usage(cache_dir())
    return {
        "tensors": f"PyTorch on {current_device()}",
        "kernels": f"Warp, compiled at first use for the {'GPU (NVRTC)' if gpu else 'CPU (LLVM)'}",
        "precision": "as the recipe says" if gpu else "32 bit, unless training.precision_on_cpu says another",
        EMBEDDED_PRIOR: f"in the package, {_megabytes(prior):.1f} MB"
        if prior.is_dir()
        else "not in this installation",
        "cache": f"{cache_dir()} ({disk.free / 2**30:.0f} GB free)",
        "several GPUs": "--gpu 0,1 starts a process on each"
        if gpu
        else "trainer.devices=N starts N processes",
    }


def _missing() -> dict[str, str]:
    """What is not installed: what it is for, and the command that brings it."""
    from importlib.util import find_spec

    from maquette.io.reconstruct import missing_libraries

    rows = {
        package: f"pip install 'maquette[{extra}]' ({purpose})"
        for package, (extra, purpose) in OPTIONAL.items()
        if find_spec(package) is None
    }
    lacking = {} if "open3d" in rows else missing_libraries()
    if lacking:
        rows["libraries of open3d"] = f"apt-get install {' '.join(lacking.values())}"
    if shutil.which("git") is None:
        rows["git"] = "the system's package manager (the commit of the code in a run's folder)"
    if not assets_dir("prior").is_dir():
        rows[EMBEDDED_PRIOR] = "a wheel or a full checkout of maquette (the model that needs no network)"
    return rows


def _megabytes(folder: Any) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _table(title: str, rows: Mapping[str, Any]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(str(value)))
    return table

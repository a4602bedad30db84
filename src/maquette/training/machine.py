"""Facts about this machine and what is installed on it, for ``run.json`` and ``maquette doctor``."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import maquette
from maquette.core.device import current_device, gpu_count, is_gpu
from maquette.core.log import is_set_here

PACKAGES = (
    "torch", "lightning", "diffusers", "transformers", "omegaconf", "warp-lang", "numpy", "trimesh", "xatlas",
    "imageio", "safetensors",
)  # fmt: skip

VARIABLES = (
    "MAQUETTE_", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTORCH_", "TORCH_", "HF_HOME", "HF_HUB_OFFLINE",
    "HF_HUB_CACHE", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME", "NCCL_", "GLOO_",
    "RANK", "LOCAL_RANK", "WORLD_SIZE",
)  # fmt: skip
"""How the names of variables begin that change how a run goes; none of them holds a secret."""


def machine() -> dict[str, Any]:
    """Name, system, processor, cores and threads, and the GPU where one is used."""
    facts: dict[str, Any] = {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(current_device()),
    }
    if is_gpu(current_device()):
        facts["gpus"] = gpu_count()
        facts["gpu"] = torch.get_device_module(current_device()).get_device_name(current_device())
    return facts


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what it stands on; "-" for what is not installed."""
    found = {"python": platform.python_version(), "maquette": maquette.__version__}
    return found | {name: _version(name) for name in PACKAGES}


def all_versions() -> dict[str, str]:
    """As `versions`, with every package that this one asks for, extras too."""
    try:
        asked = metadata.requires("maquette") or []
    except metadata.PackageNotFoundError:
        asked = []
    names = {match[0] for one in asked if (match := re.match(r"[\w.-]+", one))}
    return versions() | {name: _version(name) for name in sorted(names)}


def surroundings() -> dict[str, str]:
    """What a report about a fault needs besides `machine` and `versions`: memory, C library, instructions,
    and the variables of the user's environment that change how things run.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {
        "usable cores": str(usable),
        "memory": _memory(),
        "C library": " ".join(platform.libc_ver()).strip(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "BLAS": "MKL" if torch.backends.mkl.is_available() else "other than MKL",
        "python at": sys.executable,
        "environment": ", ".join(
            f"{name}={value}"
            for name, value in sorted(os.environ.items())
            if name.startswith(VARIABLES) and not is_set_here(name)
        ),
    }
    return {name: value for name, value in facts.items() if value}


def _memory() -> str:
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        total, free = (int(lines[name].split()[0]) / 2**20 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return ""
    return f"{total:.1f} GiB, {free:.1f} available"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "-"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
            return next(names, platform.machine())
    except OSError:
        return platform.processor() or platform.machine()

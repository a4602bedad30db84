"""Facts about this machine and what is installed on it, for ``run.json`` and ``maquette doctor``."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch

import maquette
from maquette.core.device import current_device, gpu_count, is_gpu

PACKAGES = (
    "torch", "lightning", "diffusers", "transformers", "omegaconf", "warp-lang", "numpy", "trimesh", "xatlas",
    "imageio", "safetensors",
)  # fmt: skip


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

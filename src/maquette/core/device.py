"""The one place that knows which accelerator there is."""

import os
import re
import resource
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from maquette.core.errors import ConfigError

_state: dict[str, torch.device] = {}

_STATM = Path("/proc/self/statm")


def resolve_device(spec: str = "auto") -> torch.device:
    """The device that "auto", "cpu", "cuda" or "cuda:1" means on this machine.

    Without an index, a process of a multi-GPU run gets the GPU of its local rank.

    Raises:
        ConfigError: the device is unknown or not there.
    """
    if spec == "auto":
        spec = "cuda" if torch.cuda.is_available() else "cpu"
    name, _, index = spec.partition(":")
    if name == "cpu" and not index:
        return torch.device("cpu")
    if name != "cuda" or (index and not index.isdigit()):
        raise ConfigError("device", spec, "auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise ConfigError(
            "device", spec, "a device of this machine, which has no usable GPU", "use auto or cpu"
        )
    return _gpu(int(index) if index else int(os.environ.get("LOCAL_RANK", "0")))


def _gpu(index: int) -> torch.device:
    count = torch.cuda.device_count()
    if index >= count:
        raise ConfigError("device", f"cuda:{index}", f"a GPU index below {count}")
    return torch.device("cuda", index)


def use_device(device: torch.device | str) -> torch.device:
    """Make `device` the one that new modules are made on, in this process."""
    _state["current"] = resolve_device(device) if isinstance(device, str) else device
    return _state["current"]


def current_device() -> torch.device:
    """The device that new modules are made on: the one given to `use_device`, else what "auto" means."""
    if "current" not in _state:
        _state["current"] = resolve_device("auto")
    return _state["current"]


def is_gpu(device: torch.device | str) -> bool:
    """Whether a tensor on this device lives on a GPU."""
    return torch.device(device).type == "cuda"


def gpu_count() -> int:
    """How many GPUs this process sees."""
    return torch.cuda.device_count()


def select_gpus(spec: str) -> None:
    """Show only these GPUs ("0" or "1,2") to this process; an environment variable that is set already wins.

    To be called before anything touches a GPU.
    """
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", spec)


def accelerator_facts() -> dict[str, str]:
    """What torch was built for, and each GPU that it sees with memory and generation, or why it sees none."""
    built = (
        f"CUDA {torch.version.cuda}"
        if torch.version.cuda
        else "ROCm"
        if torch.version.hip
        else "the CPU only"
    )
    facts = {"torch is built for": built, "driver": _driver(), "GPU": ""}
    if torch.cuda.is_available():
        facts |= {f"GPU {i}": _gpu_facts(i) for i in range(gpu_count())}
        facts["cuDNN"] = str(torch.backends.cudnn.version() or "")  # type: ignore[no-untyped-call]
    elif built == "the CPU only":
        facts["GPU"] = "none for this torch; https://pytorch.org/get-started has builds for GPUs"
    else:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        facts["GPU"] = "none found" if hidden is None else f"none found among CUDA_VISIBLE_DEVICES={hidden!r}"
    return {name: value for name, value in facts.items() if value}


def _gpu_facts(index: int) -> str:
    found = torch.cuda.get_device_properties(index)
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB, compute {found.major}.{found.minor}"


def _driver() -> str:
    """Version of NVIDIA's kernel module; empty where there is none."""
    path = Path("/proc/driver/nvidia/version")
    words = re.search(r"\s(\d+\.[\d.]+)", path.read_text()) if path.is_file() else None
    return words[1] if words else ""


def autocast_off(device: torch.device | str) -> AbstractContextManager[object]:
    """A block in full precision, whatever mixed precision surrounds it."""
    return torch.autocast(torch.device(device).type, enabled=False)


def peak_memory() -> float:
    """Highest memory use of this process so far, in GiB: on its GPU where it uses one, else on the host."""
    if is_gpu(current_device()):
        return torch.cuda.max_memory_allocated(current_device()) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def resident_memory() -> float | None:
    """GiB of the host's memory that this process holds now; None on systems other than Linux."""
    if not _STATM.exists():
        return None
    return int(_STATM.read_text().split()[1]) * resource.getpagesize() / 2**30


def memory_in_use() -> dict[str, float]:
    """GiB that are held now: by this process on the host (Linux only), and by tensors on its GPU."""
    resident = resident_memory()
    held = {} if resident is None else {"process": resident}
    if is_gpu(current_device()):
        held["gpu"] = torch.cuda.memory_allocated(current_device()) / 2**30
        held["gpu_reserved"] = torch.cuda.memory_reserved(current_device()) / 2**30
    return held


def record_memory_history(wanted: bool) -> None:
    """Begin, or end, to remember every allocation on the GPU; does nothing without one."""
    if is_gpu(current_device()):
        torch.cuda.memory._record_memory_history(enabled="all" if wanted else None)


def dump_memory_history(path: Path) -> None:
    """Write what was remembered, for https://pytorch.org/memory_viz."""
    torch.cuda.memory._dump_snapshot(str(path))  # type: ignore[no-untyped-call]


def profiler_activities() -> list[torch.profiler.ProfilerActivity]:
    """What a profiler can record here: the host, and the GPU where one is used."""
    kinds = torch.profiler.ProfilerActivity
    return [kinds.CPU, kinds.CUDA] if is_gpu(current_device()) else [kinds.CPU]


def release_memory() -> None:
    """Give cached blocks back to the GPU's driver; does nothing without a GPU."""
    if is_gpu(current_device()):
        torch.cuda.empty_cache()


def synchronize() -> None:
    """Wait until the GPU has done everything asked of it; does nothing without a GPU."""
    if is_gpu(current_device()):
        torch.cuda.synchronize(current_device())


def trainer_accelerator(device: torch.device | str | None = None) -> str:
    """The name that a Lightning Trainer has for this kind of device: "gpu" or "cpu"."""
    return "gpu" if is_gpu(current_device() if device is None else device) else "cpu"


def collective_backend() -> str:
    """What the processes of a run talk through: "nccl" between GPUs, else "gloo"."""
    if not is_gpu(current_device()):
        return "gloo"
    torch.cuda.set_device(current_device())
    return "nccl"


def kernel_device(device: torch.device | str) -> str:
    """The name that Warp has for this device: "cpu" or "cuda:0"."""
    device = torch.device(device)
    return f"cuda:{device.index or 0}" if is_gpu(device) else "cpu"


def seed_accelerator(seed: int) -> None:
    """Seed the present GPU's global generator, if one is in use; costs nothing without."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed(seed)

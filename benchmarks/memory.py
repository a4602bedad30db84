"""Peak memory and time of a step of score distillation, for each preset and switch, each in its own process.

    python benchmarks/memory.py                         # Stable Diffusion 1.5, random weights, 512 x 512
    python benchmarks/memory.py --only nothing slicing --model middle
    python benchmarks/memory.py --device cuda --half

A step encodes pictures, asks the UNet once for the prompt and the negative prompt together, and goes back
through the encoder to the pixels. The peak is the process's own (Linux counts it), or that of torch's
allocator on a GPU; it includes the weights. Gradients are compared with those of the first row.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusion_models import guidance, model, pictures, prompt
from measure import machine
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from maquette.core.device import (
    current_device,
    is_gpu,
    peak_memory,
    release_memory,
    resolve_device,
    synchronize,
    use_device,
)
from maquette.diffusion.latent_denoiser import LatentDenoiser
from maquette.diffusion.memory import NOTHING, PRESETS, Memory, apply_memory

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
console = Console(width=120)


@dataclass(frozen=True)
class Row:
    """Something that is measured."""

    name: str
    memory: Memory = NOTHING
    batch: int = 1
    before: Callable[[LatentDenoiser], None] | None = None
    """A change of the model itself, before the options are applied."""
    keep_text_encoder: bool = False


def write_out(denoiser: LatentDenoiser) -> None:
    """Attention as it was before fused kernels: the maps are written to memory."""
    denoiser.unet.set_attn_processor(AttnProcessor())


ROWS = [
    Row("nothing"),
    Row("attention written out", before=write_out),
    Row("written out, then memory-efficient", Memory(memory_efficient_attention=True), before=write_out),
    Row("attention slices, auto", Memory(attention_slice="auto")),
    Row("attention slices, max", Memory(attention_slice="max")),
    Row("channels last", Memory(channels_last=True)),
    Row("checkpointed encoder", Memory(vae_checkpointing=True)),
    Row("tiles of 256", Memory(vae_tiling=True, vae_tile_size=256)),
    Row("tiles of 256, checkpointed", Memory(vae_tiling=True, vae_tile_size=256, vae_checkpointing=True)),
    Row("text encoder kept", keep_text_encoder=True),
    Row("memory: slicing", PRESETS["slicing"]),
    Row("memory: offload", PRESETS["offload"]),
    Row("memory: sequential", PRESETS["sequential"]),
    Row("two pictures", batch=2),
    Row("two pictures, VAE slices", Memory(vae_slicing=True), batch=2),
    Row("two pictures, preset slicing", PRESETS["slicing"], batch=2),
]


def main() -> None:
    args = arguments()
    if args.here:
        print(json.dumps(measured(next(row for row in ROWS if row.name == args.here), args)))
        return
    chosen = [row for row in ROWS if not args.only or any(word in row.name for word in args.only)]
    console.print(table(chosen, args))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD", help="rows with this in their name")
    parser.add_argument("--model", default="sd15", help="sd15, middle, or the name of a model (sd15)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--half", action="store_true", help="float16")
    parser.add_argument("--steps", type=int, default=1, help="of which the fastest counts (1)")
    parser.add_argument("--gradients", default="", help="folder that keeps the gradients between calls")
    parser.add_argument("--here", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def table(rows: list[Row], args: argparse.Namespace) -> Table:
    """A process for each row; what a device cannot do is said in its place."""
    device = resolve_device(args.device)
    found = Table(box=SIMPLE, title=f"{args.model}, device {device}; {machine()}")
    found.add_column("row")
    for heading in ("peak GiB", "above the weights", "seconds", "gradient's difference"):
        found.add_column(heading, justify="right")
    with TemporaryDirectory() as folder:
        for row in rows:
            if row.memory.offload != "none" and not is_gpu(device):
                found.add_row(row.name, "needs a GPU")
                continue
            with console.status(row.name):
                options = ["--gradients", folder] if not args.gradients else []
                found.add_row(row.name, *cells(run(row, [*sys.argv[1:], *options])))
    return found


def run(row: Row, options: list[str]) -> dict[str, Any]:
    """What the process of a row measured."""
    command = [sys.executable, __file__, *options, "--here", row.name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def cells(result: dict[str, Any]) -> list[str]:
    difference = result["difference"]
    return [
        f"{result['peak']:.2f}",
        f"{result['peak'] - result['before']:.2f}",
        f"{result['seconds']:.1f}",
        "-" if difference is None else f"{difference:.0e}",
    ]


def measured(row: Row, args: argparse.Namespace) -> dict[str, Any]:
    """Peak GiB, GiB before the step, seconds, and how far the gradient is from that of no options."""
    device = use_device(args.device)
    denoiser = model(args.model, dtype=torch.float16 if args.half else torch.float32)
    kept = text_encoder() if row.keep_text_encoder else None
    if row.before is not None:
        row.before(denoiser)
    if row.memory.offload == "none":
        denoiser.to(device)
    apply_memory(denoiser, row.memory, device)
    critic, text, images = guidance(denoiser), prompt(denoiser), pictures(denoiser, row.batch)
    release_memory()
    before = reset_peak()
    taken = min(step_seconds(critic, text, images) for _ in range(args.steps))
    peak = peak_memory() if is_gpu(device) else status_gib("VmHWM")
    difference = compared(images.grad, f"{row.batch}", Path(args.gradients)) if args.gradients else None
    del kept
    return {"before": before, "peak": peak, "seconds": taken, "difference": difference}


def text_encoder() -> torch.nn.Module:
    """CLIP's text encoder as Stable Diffusion 1 has it."""
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    }
    return CLIPTextModel(CLIPTextConfig(**sizes)).to(current_device())


def step_seconds(critic: Any, text: Any, images: torch.Tensor) -> float:
    """A step of score distillation; with one thread of the CPU the process's own time."""
    alone = not is_gpu(current_device()) and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    images.grad = None
    angles = torch.zeros(len(images), device=images.device)
    synchronize()
    begin = clock()
    critic(images, text, angles, angles, angles + 3.0).loss_sds.backward()
    synchronize()
    return clock() - begin


def reset_peak() -> float:
    """Forget the peak so far; what is in use now, in GiB."""
    if is_gpu(current_device()):
        torch.accelerator.reset_peak_memory_stats()
        return torch.accelerator.memory_allocated() / 2**30
    CLEAR.write_text("5")
    return status_gib("VmRSS")


def status_gib(key: str) -> float:
    """A figure of the kernel's about this process."""
    line = next(one for one in STATUS.read_text().splitlines() if one.startswith(key))
    return int(line.split()[1]) / 2**20


def compared(gradient: torch.Tensor, key: str, folder: Path) -> float:
    """The relative difference to the gradient of the first row with this key, which is kept."""
    path = folder / f"{key}.pt"
    if not path.exists():
        torch.save(gradient.cpu(), path)
    expected = torch.load(path)
    return ((gradient.cpu() - expected).norm() / expected.norm()).item()


if __name__ == "__main__":
    main()

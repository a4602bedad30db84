"""What it costs to keep the attention maps of a UNet: a captured forward beside a plain one, in one run.

    python benchmarks/attention.py [--model maquette/toyworld middle sd15] [--rounds 7] [--batch 2]

The plain forward has diffusers' own processor that writes the maps out. The exit code is 1 where a captured
forward takes more than 1.6 times as long, its output differs by more than 1e-5, or a row does not sum to one.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping

import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusion_models import TOKENS, model
from measure import cpu_seconds, machine
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

from maquette.diffusion.attention import AttentionCapture
from maquette.diffusion.latent_denoiser import LatentDenoiser

LIMIT = 1.6
CLOSE = 1e-5
CAPTURES: dict[str, dict[str, object]] = {
    "cross": {"kind": "cross"},
    "cross, mean of the heads": {"kind": "cross", "mean_heads": True},
    "cross and self": {"kind": None},
}


def main() -> None:
    args = arguments()
    table = Table(box=SIMPLE, title=f"{machine()}; medians of {args.rounds} rounds, batch {args.batch}")
    table.add_column("model, what is captured")
    for heading in ("plain ms", "fused ms", "captured ms", "ratio", "maps MiB", "output", "rows"):
        table.add_column(heading, justify="right")
    passed = True
    for name in args.model:
        for row in rows(name, args.batch, args.rounds):
            passed &= row.pop("passed") == "yes"
            table.add_row(*row.values())
    Console(width=120).print(table)
    sys.exit(0 if passed else 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", default=["maquette/toyworld", "middle"])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def rows(name: str, batch: int, rounds: int) -> list[dict[str, str]]:
    """One for each way to capture; all of them are measured in turn."""
    denoiser = model(name)
    fused = inputs(denoiser, batch)
    fused_seconds = statistics.median(cpu_seconds(fused) for _ in range(3))
    denoiser.unet.set_attn_processor(AttnProcessor())
    plain, expected = fused, fused()
    captures = {key: AttentionCapture(denoiser.unet, **how) for key, how in CAPTURES.items()}
    tasks: dict[str, Callable[[], Tensor]] = {"plain": plain}
    tasks |= {key: captured(seen, plain) for key, seen in captures.items()}
    outputs = {key: task() for key, task in tasks.items()}
    taken = interleaved(tasks, rounds)
    found = []
    for key, seen in captures.items():
        maps = [one for kept in seen.maps.values() for one in kept]
        ratio = taken[key] / taken["plain"]
        difference = ((outputs[key] - expected).abs().max() / expected.abs().max()).item()
        off = max((one.sum(-1) - 1.0).abs().max().item() for one in maps)
        found.append(
            {
                "name": f"{name}, {key}",
                "plain": f"{1e3 * taken['plain']:.1f}",
                "fused": f"{1e3 * fused_seconds:.1f}",
                "captured": f"{1e3 * taken[key]:.1f}",
                "ratio": f"{ratio:.2f}",
                "maps": f"{sum(one.numel() * one.element_size() for one in maps) / 2**20:.1f}",
                "output": f"{difference:.0e}",
                "rows": f"{off:.0e}",
                "passed": "yes" if ratio <= LIMIT and difference <= CLOSE and off <= CLOSE else "no",
            }
        )
    return found


def inputs(denoiser: LatentDenoiser, batch: int) -> Callable[[], Tensor]:
    """A forward pass of the UNet."""
    generator = torch.Generator().manual_seed(0)
    side, width = denoiser.latent_size, denoiser.unet.config.cross_attention_dim
    x = torch.randn(batch, denoiser.latent_channels, side, side, generator=generator)
    text = torch.randn(batch, TOKENS, width, generator=generator)
    t = torch.full((batch,), 500)

    def forward() -> Tensor:
        with torch.no_grad():
            return denoiser.predict(x, t, text)

    return forward


def captured(seen: AttentionCapture, plain: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The same forward pass, with its maps kept until the next one."""

    def forward() -> Tensor:
        seen.clear()
        with seen:
            return plain()

    return forward


def interleaved(tasks: Mapping[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """The median seconds of each task; every round runs all of them."""
    times = [{key: cpu_seconds(task) for key, task in tasks.items()} for _ in range(rounds)]
    return {key: statistics.median(one[key] for one in times) for key in tasks}


if __name__ == "__main__":
    main()

"""What the options of the `training:` block do to a step, forward and backward, side by side in one run.

    python benchmarks/training.py [--only classifier denoiser] [--rounds 9] [--device cpu] [--no-compile]

The models are those that the embedded prior is made of and judged by. "kept" is what autograd keeps for the
backward pass, weights excluded. The options are the very functions that a run uses; gradients are compared
with those of the plain model (cosine of the angle between them).
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from measure import cpu_seconds, machine
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from maquette.diffusion.embedded import LATENT_CHANNELS, LATENT_SIZE, TEXT_WIDTH, build_unet
from maquette.models.networks.toy_cnn import ToyCNN
from maquette.training.callbacks.ema import WeightAverage
from maquette.training.craft.compiling import compile_modules
from maquette.training.craft.gradient_checkpointing import use_gradient_checkpointing
from maquette.training.craft.memory_format import use_channels_last
from maquette.training.optimization.optimizers import parse_optimizer


@dataclass
class Problem:
    """A model inside a module of its own, so that it has a path, and its loss."""

    holder: nn.Module
    loss: Callable[[], Tensor]
    around: Callable[[], AbstractContextManager[object]] = nullcontext

    def step(self) -> None:
        """Forward and backward."""
        self.holder.zero_grad()
        with self.around():
            loss = self.loss()
        loss.backward()

    def kept(self) -> float:
        """MiB that autograd keeps, each tensor once."""
        weights = {one.data_ptr() for one in self.holder.parameters()}
        seen: dict[int, int] = {}

        def pack(one: Tensor) -> Tensor:
            storage = one.untyped_storage()
            if one.data_ptr() not in weights:
                seen[storage.data_ptr()] = storage.nbytes()
            return one

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one), self.around():
            self.loss()
        return sum(seen.values()) / 2**20

    def gradient(self) -> Tensor:
        """All gradients in one row."""
        self.step()
        return torch.cat([one.grad.flatten() for one in self.holder.parameters() if one.grad is not None])


def classifier() -> Problem:
    torch.manual_seed(0)
    holder, pictures = nn.Module(), torch.rand(32, 3, 64, 64)
    holder.model = ToyCNN(8, 8, 64, 24)
    return Problem(
        holder, lambda: sum(one.float().square().mean() for one in holder.model(pictures).values())
    )


def denoiser() -> Problem:
    torch.manual_seed(0)
    holder, latents = nn.Module(), torch.randn(8, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
    holder.model = build_unet()
    text, times = torch.randn(8, 16, TEXT_WIDTH), torch.full((8,), 400)
    return Problem(holder, lambda: holder.model(latents, times, text).sample.float().square().mean())


FORMS = ("{:.1f}", "{:.2f}", "{:.1f}", "{:.1f}", "{:.5f}")
PROBLEMS = {"classifier": classifier, "denoiser": denoiser}


def half(kind: torch.dtype, device: str, problem: Problem) -> None:
    problem.around = partial(torch.autocast, torch.device(device).type, dtype=kind)


def options(device: str, compiled: bool) -> dict[str, Callable[[Problem], object]]:
    found: dict[str, Callable[[Problem], object]] = {
        "plain": lambda problem: None,
        "channels_last": lambda problem: use_channels_last(problem.holder, ["model"]),
        "gradient_checkpointing": lambda problem: use_gradient_checkpointing(problem.holder, ["model"]),
        "bf16-mixed": partial(half, torch.bfloat16, device),
        "16-mixed": partial(half, torch.float16, device),
    }
    if compiled:
        found["compile"] = lambda problem: compile_modules(problem.holder, ["model"])
    return found


def rows(make: Callable[[], Problem], args: argparse.Namespace) -> Iterator[list[str]]:
    problems = {name: make() for name in options(args.device, not args.no_compile)}
    begun = {}
    for name, change in options(args.device, not args.no_compile).items():
        change(problems[name])
        begun[name] = cpu_seconds(problems[name].step)
    taken = {name: [] for name in problems}
    for _ in range(args.rounds):
        for name, problem in problems.items():
            taken[name].append(cpu_seconds(problem.step))
    plain = statistics.median(taken["plain"])
    truth = problems["plain"].gradient()
    for name, problem in problems.items():
        middle = statistics.median(taken[name])
        cosine = torch.cosine_similarity(problem.gradient().double(), truth.double(), dim=0)
        numbers = (1e3 * middle, middle / plain, problem.kept(), begun[name], cosine)
        yield [name, *(form.format(one) for form, one in zip(FORMS, numbers, strict=True))]


def update_rows(make: Callable[[], Problem], rounds: int) -> Iterator[list[str]]:
    """What follows the gradients: the optimizer, with and without torch's grouped loops, and the average."""
    problem = make()
    problem.step()
    step = statistics.median(cpu_seconds(problem.step) for _ in range(rounds))
    updates: dict[str, Callable[[], object]] = {}
    for name, more in (("Adam", {}), ("Adam", {"foreach": True}), ("Adam", {"fused": True}), ("SGD", {})):
        optimizer = parse_optimizer({"name": name, "args": {"lr": 1e-6, **more}}, problem.holder)
        updates[" ".join([name, *more])] = optimizer.step
    updates["ema"] = partial(WeightAverage(problem.holder, 0.999).update, problem.holder)
    for name, update in updates.items():
        update()
        middle = statistics.median(cpu_seconds(update) for _ in range(rounds))
        yield [name, f"{1e3 * middle:.1f}", f"{middle / step:.2f}", "", "", ""]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    args = parser.parse_args()
    torch.set_default_device(args.device)
    for name in args.only:
        table = Table(box=SIMPLE, title=f"{name}; {machine()}; medians of {args.rounds} rounds")
        table.add_column("option")
        for heading in ("step ms", "ratio", "kept MiB", "first step s", "cosine"):
            table.add_column(heading, justify="right")
        for row in rows(PROBLEMS[name], args):
            table.add_row(*row)
        table.add_section()
        for row in update_rows(PROBLEMS[name], args.rounds):
            table.add_row(*row)
        Console(width=110).print(table)


if __name__ == "__main__":
    main()

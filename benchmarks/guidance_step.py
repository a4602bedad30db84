"""A step of score distillation beside its parts done by hand, in turn, in one run.

    python benchmarks/guidance_step.py [--model maquette/toyworld middle sd15] [--rounds 15] [--batch 1]

By hand: encode the pictures, one batched call of the UNet for the prompt and the negative prompt, and back
through the encoder to the pixels. The guidance also asks for text and noise level, draws noise, guides and
checks. The exit code is 1 where it takes more than 1.10 times as long.
"""

import argparse
import statistics
import sys
from collections.abc import Callable

import torch
from diffusion_models import guidance, model, pictures, prompt
from measure import cpu_seconds, machine
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

from maquette.diffusion.latent_denoiser import LatentDenoiser
from maquette.models.prompt_processors.prompt_utils import PromptUtils

LIMIT = 1.10


def main() -> None:
    args = arguments()
    table = Table(box=SIMPLE, title=f"{machine()}; {args.rounds} rounds, medians")
    table.add_column("model")
    for heading in ("batch", "by hand ms", "guidance ms", "ratio"):
        table.add_column(heading, justify="right")
    passed = True
    for name in args.model:
        denoiser = model(name)
        for batch in args.batch:
            hand, step = measured(denoiser, batch, args.rounds)
            ratio = statistics.median(b / a for a, b in zip(hand, step, strict=True))
            passed &= ratio <= LIMIT
            times = (f"{1e3 * statistics.median(one):.1f}" for one in (hand, step))
            table.add_row(name, str(batch), *times, f"{ratio:.3f}")
    Console(width=100).print(table)
    sys.exit(0 if passed else 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", default=["maquette/toyworld", "middle"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args()


def measured(denoiser: LatentDenoiser, batch: int, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each round, by hand and by the guidance; they take turns in being first."""
    text = prompt(denoiser)
    tasks = [by_hand(denoiser, batch, text), by_guidance(denoiser, batch, text)]
    for task in tasks:
        task()
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            times[which].append(cpu_seconds(tasks[which]))
    return times


def by_hand(denoiser: LatentDenoiser, batch: int, text: PromptUtils) -> Callable[[], None]:
    """The parts that no implementation can do without, on the networks themselves."""
    images = pictures(denoiser, batch)
    side = denoiser.latent_size
    noised = torch.randn(2 * batch, denoiser.latent_channels, side, side)
    t = torch.full((2 * batch,), 500)
    words = torch.cat(
        [text.text_vd.hidden[:1].expand(batch, -1, -1), text.uncond.hidden.expand(batch, -1, -1)]
    )

    def step() -> None:
        images.grad = None
        latents: Tensor = denoiser.vae.encode(images.permute(0, 3, 1, 2) * 2 - 1).latent_dist.mean
        with torch.no_grad():
            predicted = denoiser.unet(noised, t, words, return_dict=False)[0]
        latents.backward(predicted[:batch])

    return step


def by_guidance(denoiser: LatentDenoiser, batch: int, text: PromptUtils) -> Callable[[], None]:
    """A call of the guidance and the backward pass of its loss."""
    critic, images = guidance(denoiser), pictures(denoiser, batch)
    angles = torch.zeros(batch)

    def step() -> None:
        images.grad = None
        critic(images, text, angles, angles, angles + 3.0).loss_sds.backward()

    return step


if __name__ == "__main__":
    main()

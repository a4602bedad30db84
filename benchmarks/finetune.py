"""Does a toy that the embedded prior has never seen become a 3D asset after eight pictures of it?

    python benchmarks/finetune.py [--method lora|dreambooth] [--steps N] [--out DIR] [key.path=value ...]

Renders eight pictures of a turtle, fine-tunes on them, makes "a green <new1>" in 3D with what was learned,
and "a green duck", which the new word began as, with the prior as it was. Both meshes are compared with the
true toy from eight cameras that took none of the pictures, and so is the toy of the prior that comes nearest.
What is done is kept: the same command goes on where it was stopped. Writes `scores.json`, `table.md` and
`sheet.png` into --out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from maquette.data.toyworld.album import write_toy
from maquette.data.toyworld.kinds import KINDS
from maquette.data.toyworld.mesh import colored_toy
from maquette.evaluation.asset_score import BACKGROUND, sector_cameras
from maquette.evaluation.mesh_compare import compare_shapes
from maquette.io.images import write_image
from maquette.io.mesh import read_mesh
from maquette.kernels.render_mesh import render_mesh
from maquette.ops.mesh import Mesh

KIND, COLOR, BEGINS_AS = "turtle", "green", "duck"
PROMPT = f"a {COLOR} <new1>"
SIZE = 128
UNET = Path("unet") / "diffusion_pytorch_model.safetensors"
console = Console()


@dataclass(frozen=True)
class Likeness:
    """An asset beside the true toy, in eight views."""

    psnr: float
    """Of the colors on the same background, in decibels."""
    ssim: float
    """Of the same pictures."""
    iou: float
    """Of the silhouettes."""
    chamfer_percent: float
    """Of the diagonal of the true toy."""
    turn: int
    """Eighths of a turn after which the views fit best; 0 if the front is where it should be."""


def views(mesh: Mesh) -> tuple[Float[Tensor, "8 3 H W"], Float[Tensor, "8 1 H W"]]:
    """Unlit pictures from the centres of the eight sectors, and silhouettes."""
    found = render_mesh(mesh, sector_cameras(SIZE), shading="albedo", background=BACKGROUND)
    return found["rgb"].permute(0, 3, 1, 2).clamp(0, 1), found["opacity"].permute(0, 3, 1, 2)


def likeness(mesh: Mesh, truth: Mesh) -> Likeness:
    """How much a mesh looks like another."""
    (rgb, mask), (true_rgb, true_mask) = views(mesh), views(truth)
    errors = [(rgb.roll(turn, 0) - true_rgb).square().mean() for turn in range(len(rgb))]
    both = torch.minimum(mask, true_mask).sum() / torch.maximum(mask, true_mask).sum()
    return Likeness(
        psnr=float(-10 * errors[0].log10()),
        ssim=float(structural_similarity_index_measure(rgb, true_rgb, data_range=1.0)),
        iou=float(both),
        chamfer_percent=compare_shapes(truth, mesh, 20_000).chamfer_percent,
        turn=int(torch.stack(errors).argmin()),
    )


def maquette(folder: Path, *words: str) -> None:
    """Run a command unless its folder holds a finished run; what it says goes to a file beside the folder."""
    record = folder / "run.json"
    if record.exists() and json.loads(record.read_text())["status"] == "done":
        return
    command = [sys.executable, "-m", "maquette.apps.main", *words, "--out", str(folder)]
    with console.status(" ".join(words[:2])), folder.with_suffix(".log").open("w") as log:
        done = subprocess.run(command, env=os.environ, stdout=log, stderr=log, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{words[0]} failed, see {folder.with_suffix('.log')}")


def learn(args: argparse.Namespace) -> Path:
    """Pictures, then fine-tuning; the run folder."""
    pictures, run = args.out / "pictures", args.out / args.method
    if not pictures.exists():
        pictures.mkdir(parents=True)
        write_toy(pictures, KIND, COLOR)
    words = ["finetune", args.method, "--images", str(pictures), "--prompt", PROMPT, "--init-word", BEGINS_AS]
    words += [] if args.steps is None else ["--steps", str(args.steps)]
    maquette(run, *words, "--seed", str(args.seed), *args.overrides)
    return run


def generate(args: argparse.Namespace, run: Path) -> dict[str, Mesh]:
    """The asset with what was learned, and the one without."""
    learned = ["--lora", str(run)] if args.method == "lora" else ["--prior", str(run / "pipeline")]
    asked = {f"with {args.method}": [PROMPT, *learned], "without": [PROMPT.replace("<new1>", BEGINS_AS)]}
    meshes = {}
    for name, words in asked.items():
        folder = args.out / name.replace(" ", "-")
        steps = [] if args.asset_steps is None else ["--steps", str(args.asset_steps)]
        maquette(folder, "generate", *words, *steps, "--seed", str(args.seed), "--overwrite")
        meshes[name] = read_mesh(folder / "mesh.glb")
    return meshes


def nearest_toy(truth: Mesh) -> tuple[str, Mesh]:
    """The toy of the prior's world that looks most like the true one."""
    toys = {kind: colored_toy(kind, COLOR) for kind in KINDS}
    true_rgb = views(truth)[0]
    name = min(toys, key=lambda kind: float((views(toys[kind])[0] - true_rgb).square().mean()))
    return name, toys[name]


def report(scores: dict[str, Likeness], caption: str) -> Table:
    """One row an asset."""
    table = Table(title=f"{COLOR} {KIND}: likeness to the true toy, eight views", caption=caption)
    for heading in ("asset", "PSNR dB", "SSIM", "silhouette IoU", "chamfer %", "turned by"):
        table.add_column(heading)
    for name, one in scores.items():
        figures = (f"{one.psnr:.2f}", f"{one.ssim:.3f}", f"{one.iou:.3f}", f"{one.chamfer_percent:.2f}")
        table.add_row(name, *figures, f"{45 * one.turn} deg")
    return table


def size_of(run: Path) -> str:
    """The adapter's file beside the UNet's."""
    from maquette.core.paths import EMBEDDED_PRIOR
    from maquette.diffusion.load import model_folder

    adapter = run / "pytorch_lora_weights.safetensors"
    if not adapter.exists():
        return ""
    share = adapter.stat().st_size / (model_folder(EMBEDDED_PRIOR, ("unet",)) / UNET).stat().st_size
    return f"adapter {adapter.stat().st_size / 1000:.0f} kB, {100 * share:.2f} % of the UNet's file"


def main() -> int:
    """Learn, generate, judge, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", choices=("lora", "dreambooth"), default="lora")
    parser.add_argument("--steps", type=int, help="of fine-tuning (the recipe's)")
    parser.add_argument("--asset-steps", type=int, help="of each asset (the recipe's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/finetune"))
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="changes to the fine-tuning")
    args = parser.parse_intermixed_args()
    run = learn(args)
    truth = colored_toy(KIND, COLOR)
    meshes = generate(args, run)
    name, toy = nearest_toy(truth)
    meshes[f"nearest known toy ({name})"] = toy
    scores = {name: likeness(mesh, truth) for name, mesh in meshes.items()}
    table = report(scores, size_of(run))
    console.print(table)
    contents = {name: asdict(one) for name, one in scores.items()}
    (args.out / "scores.json").write_text(json.dumps(contents, indent=2))
    with (args.out / "table.md").open("w") as file:
        Console(file=file, width=120).print(table)
    rows = [torch.cat(list(views(mesh)[0].permute(0, 2, 3, 1)), dim=1) for mesh in (truth, *meshes.values())]
    write_image(args.out / "sheet.png", torch.cat(rows, dim=0))
    with_it, without = list(scores.values())[:2]
    return 0 if with_it.psnr > without.psnr and with_it.ssim > without.ssim else 1


if __name__ == "__main__":
    sys.exit(main())

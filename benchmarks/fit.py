"""Does each representation recover a known object from its pictures?

    python benchmarks/fit.py --representation volume|sdf|gaussians|tetrahedra|custom-mesh|all
        [--toy mushroom] [--minutes 5] [--out DIR]

40 views of a toy (128 x 128, seeded cameras) are optimised for with Adam and the plain squared error of the
colors (a signed distance also keeps its slope at one, a mesh its edges smooth). Then views from cameras that
were not among them, and the extracted surface, are judged against the toy. One process for each
representation; prints one table and writes the pictures side by side: truth, fit, difference.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from fit_recipes import RECIPES, Recipe, Targets
from fit_scene import Scene, Views, true_surface_points
from measure import peak_mib
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from maquette.core.device import peak_memory
from maquette.data.toyworld.kinds import KINDS
from maquette.io.images import write_image
from maquette.kernels.nearest import chamfer
from maquette.ops.mesh import bounding_box
from maquette.ops.point_cloud import sample_surface

SURFACE_POINTS = 200_000
"""Of each surface; two draws of this many from one toy are 0.14 % of its diagonal apart."""
SHOWN = 4
WHITE = (1.0, 1.0, 1.0)
HEADINGS = (
    "representation", "train", "held out", "chamfer", "steps", "seconds", "peak GB", "512 x 512, MiB"
)  # fmt: skip
console = Console()


@dataclass(frozen=True)
class Score:
    """What one representation reached."""

    representation: str
    psnr_train: float
    psnr_held_out: float
    chamfer: float | None
    """Part of the diagonal of the true box; None where the shape was given."""
    steps: int
    seconds: float
    peak_gb: float
    """Of the whole process, while fitting."""
    view_mib: float
    """What a view of 512 x 512 needs besides."""
    targets: Targets


def fit(recipe: Recipe, scene: Scene, minutes: float) -> tuple[int, float]:
    """Optimise until the recipe's steps, or the time, are over; returns steps and seconds."""
    begin = time.perf_counter()
    columns = (*Progress.get_default_columns()[:2], TextColumn("{task.fields[error]}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(recipe.name, total=recipe.steps, error="")
        done = 0
        for step in range(recipe.steps):
            if time.perf_counter() - begin > 60.0 * minutes:
                break
            error = recipe.step(step, scene.train)
            done = step + 1
            bar.update(task, completed=done)
            if step % 20 == 0:
                bar.update(task, error=f"{psnr_of(error):.1f} dB")
    return done, time.perf_counter() - begin


def psnr_of(squared_error: float) -> float:
    """Decibels of a mean squared error of colors in [0, 1]."""
    return -10.0 * math.log10(max(squared_error, 1e-10))


@torch.no_grad()
def rendered(recipe: Recipe, views: Views) -> Tensor:
    """The present views (B, H, W, 3) before white, one by one."""
    return torch.cat([recipe.view(views.some([i]), WHITE) for i in range(len(views))]).clamp(0.0, 1.0)


def psnr(recipe: Recipe, views: Views) -> float:
    """Decibels over all pixels of the views, before white."""
    return psnr_of(float((rendered(recipe, views) - views.before(WHITE)).square().mean()))


def surface_error(recipe: Recipe, scene: Scene) -> float:
    """Chamfer distance of the extracted surface to the visible part of the true one, over its diagonal."""
    low, high = bounding_box(scene.mesh)
    with torch.no_grad():
        mesh = recipe.geometry.isosurface()
    found = sample_surface(mesh, SURFACE_POINTS).points
    return float(chamfer(found, true_surface_points(scene.mesh, SURFACE_POINTS)) / (high - low).norm())


def side_by_side(recipe: Recipe, views: Views, path: Path) -> None:
    """A column a view: truth, fit, four times the difference."""
    shown = views.some(list(range(SHOWN)))
    truth, found = shown.before(WHITE), rendered(recipe, shown)
    difference = (1.0 - 4.0 * (truth - found).abs()).clamp(0.0, 1.0)
    rows = [torch.cat(list(row), dim=1) for row in (truth, found, difference)]
    write_image(path, torch.cat(rows, dim=0))


def judge(name: str, toy: str, minutes: float, out: Path) -> Score:
    """Fit one representation to one toy and measure what came of it."""
    scene = Scene.of(toy)
    recipe = RECIPES[name](scene)
    steps, seconds = fit(recipe, scene, minutes)
    peak = peak_memory()
    recipe.evaluate()
    large = scene.larger_view(512)
    with torch.no_grad():
        view_mib = peak_mib(lambda: recipe.view(large, WHITE))
    side_by_side(recipe, scene.held_out, out / f"{toy}-{name}.png")
    return Score(
        representation=name,
        psnr_train=psnr(recipe, scene.train),
        psnr_held_out=psnr(recipe, scene.held_out),
        chamfer=surface_error(recipe, scene) if recipe.targets.chamfer is not None else None,
        steps=steps,
        seconds=seconds,
        peak_gb=peak,
        view_mib=float(view_mib),
        targets=recipe.targets,
    )


def missed(scores: list[Score]) -> bool:
    """Whether any figure is not what was aimed at."""
    return any(
        score.psnr_held_out < (score.targets.psnr or 0.0)
        or (score.chamfer or 0.0) > (score.targets.chamfer or 1.0)
        or score.view_mib > 1500.0
        for score in scores
    )


def table_of(scores: list[Score], toy: str) -> Table:
    """One row a representation, what was missed in red."""
    table = Table(title=f"fit: {toy}, 40 views of 128 x 128, {torch.get_num_threads()} thread(s)")
    for heading in HEADINGS:
        table.add_column(heading)
    for score in scores:
        surface = "given" if score.chamfer is None else f"{100.0 * score.chamfer:.2f} %"
        limit = score.targets.chamfer
        table.add_row(
            score.representation,
            f"{score.psnr_train:.1f}",
            marked(
                f"{score.psnr_held_out:.1f} dB",
                f">= {score.targets.psnr:.0f}" if score.targets.psnr else "",
                score.psnr_held_out >= (score.targets.psnr or 0.0),
            ),
            marked(
                surface,
                f"<= {100.0 * limit:.0f} %" if limit else "",
                (score.chamfer or 0.0) <= (limit or 1.0),
            ),
            str(score.steps),
            f"{score.seconds:.0f}",
            f"{score.peak_gb:.2f}",
            marked(f"{score.view_mib:.0f}", "<= 1500", score.view_mib <= 1500.0),
        )
    return table


def marked(value: str, target: str, good: bool) -> str:
    """A figure with its target."""
    text = f"{value} ({target})" if target else value
    return text if good else f"[red]{text}[/]"


def in_a_process(name: str, args: argparse.Namespace) -> Score | None:
    """One representation in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--representation", name, "--toy", args.toy]
    command += ["--minutes", str(args.minutes), "--out", str(args.out)]
    path = args.out / f"{args.toy}-{name}.json"
    path.unlink(missing_ok=True)
    subprocess.run(command, check=False)
    return read_score(path) if path.exists() else None


def read_score(path: Path) -> Score:
    """A score that was written down."""
    content = json.loads(path.read_text())
    return Score(**{**content, "targets": Targets(**content["targets"])})


def main() -> int:
    """Fit, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--representation", choices=[*RECIPES, "all"], default="all")
    parser.add_argument("--toy", choices=list(KINDS), default="mushroom")
    parser.add_argument("--minutes", type=float, default=5.0, help="most minutes for each (5)")
    parser.add_argument("--out", type=Path, default=Path("outputs/fit"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.representation == "all":
        found = [in_a_process(name, args) for name in RECIPES]
        scores = [score for score in found if score is not None]
        console.print(table_of(scores, args.toy))
        return 1 if len(scores) < len(RECIPES) or missed(scores) else 0
    score = judge(args.representation, args.toy, args.minutes, args.out)
    (args.out / f"{args.toy}-{score.representation}.json").write_text(json.dumps(asdict(score), indent=2))
    console.print(table_of([score], args.toy))
    return 1 if missed([score]) else 0


if __name__ == "__main__":
    sys.exit(main())

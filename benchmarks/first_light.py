"""Does text become the right 3D asset? Generate many prompts and let a classifier judge the exported meshes.

    python benchmarks/first_light.py --prompts 24 [--recipe first-light] [--out DIR] [key.path=value ...]

Two workers of one thread each. What is done is kept: the same command goes on where it was stopped. Writes
`scores.json`, `table.md` and the contact sheet `sheet.png` (eight views of every asset, its true toy below)
into --out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from maquette.data.toyworld.captions import name
from maquette.data.toyworld.kinds import KINDS
from maquette.data.toyworld.mesh import colored_toy
from maquette.data.toyworld.palette import PALETTE
from maquette.evaluation.asset_score import AssetScore, render_views, score_asset
from maquette.evaluation.classifier import load_classifier
from maquette.io.images import write_image
from maquette.io.mesh import read_mesh

WORKERS = 2
console = Console()


@dataclass(frozen=True)
class Job:
    """One asset to make."""

    kind: str
    color: str
    folder: Path

    @property
    def prompt(self) -> str:
        """The words."""
        return name(self.kind, self.color)

    @property
    def mesh(self) -> Path:
        """The exported asset."""
        return self.folder / "mesh.glb"


def jobs(count: int, out: Path) -> list[Job]:
    """Every kind in turn, the color changing with each, so that no kind and no color is left out."""
    kinds, colors = list(KINDS), list(PALETTE)
    pairs = [(kinds[n % len(kinds)], colors[(n + 3 * (n // len(kinds))) % len(colors)]) for n in range(count)]
    return [Job(kind, color, out / f"{color}-{kind}") for kind, color in pairs]


def is_done(job: Job) -> bool:
    """Whether the asset was made to its end before."""
    record = job.folder / "run.json"
    return job.mesh.exists() and record.exists() and json.loads(record.read_text())["status"] == "done"


def check_same(args: argparse.Namespace) -> None:
    """What stands in --out already must come from the same question."""
    asked = {"recipe": args.recipe, "seed": args.seed, "overrides": args.overrides}
    path = args.out / "asked.json"
    if path.exists() and json.loads(path.read_text()) != asked:
        raise SystemExit(f"{args.out} holds assets of another question, see {path}: choose another --out")
    path.write_text(json.dumps(asked))


def generate(job: Job, args: argparse.Namespace) -> bool:
    """Run `maquette generate` in a process of one thread; what it says goes to a file beside the folder."""
    if is_done(job):
        return True
    command = [sys.executable, "-m", "maquette.apps.main", "generate", job.prompt, "--recipe", args.recipe]
    command += ["--seed", str(args.seed), "--out", str(job.folder), "--overwrite", *args.overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with job.folder.with_suffix(".log").open("w") as log:
        return subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode == 0


def generate_all(todo: list[Job], args: argparse.Namespace) -> list[Job]:
    """All assets, two at a time; those that failed are named and left out."""
    counters = (MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    columns = (*Progress.get_default_columns()[:2], *counters)
    done: list[Job] = []
    with Progress(*columns, console=console) as bar, ThreadPoolExecutor(args.workers) as pool:
        task = bar.add_task("generating", total=len(todo))
        for job, good in zip(todo, pool.map(lambda one: generate(one, args), todo), strict=True):
            bar.advance(task)
            if good:
                done.append(job)
            else:
                console.print(f"[red]failed[/]: {job.prompt}, see {job.folder.with_suffix('.log')}")
    return done


def summary(scores: list[AssetScore], asked: int) -> dict[str, float]:
    """The figures of the whole; an asset that was not made counts as wrong."""
    hits = [score.azimuth_hits for score in scores if score.azimuth_hits is not None]
    return {
        "prompts": asked,
        "made": len(scores),
        "kind_and_color_right": sum(score.right for score in scores) / asked,
        "azimuth_within_one_sector": sum(hits) / (8 * len(hits)) if hits else float("nan"),
        "sharpness_mean": sum(score.sharpness for score in scores) / max(len(scores), 1),
    }


def report(scores: dict[str, AssetScore], totals: dict[str, float], seconds: dict[str, float]) -> Table:
    """One row an asset, the whole below."""
    caption = "   ".join(f"{key} {value:.3g}" for key, value in totals.items())
    table = Table(title="first light", caption=caption)
    for heading in ("prompt", "seen", "right", "azimuth of 8", "sharpness", "seconds"):
        table.add_column(heading)
    for prompt, score in scores.items():
        table.add_row(
            prompt,
            f"{score.color_seen} {score.kind_seen}",
            "yes" if score.right else "[red]no[/]",
            "-" if score.azimuth_hits is None else str(score.azimuth_hits),
            f"{score.sharpness:.2f}",
            f"{seconds[prompt]:.0f}",
        )
    return table


def contact_sheet(done: list[Job], path: Path) -> None:
    """Eight views of every asset in a row, the true toy from the same cameras in the row below."""
    rows = []
    for job in done:
        for mesh in (read_mesh(job.mesh), colored_toy(job.kind, job.color)):
            rows.append(torch.cat(list(render_views(mesh, size=96).permute(0, 2, 3, 1)), dim=1))
    write_image(path, torch.cat(rows, dim=0))


def seconds_of(job: Job) -> float:
    """Wall time of a run, as it wrote down itself."""
    return sum(json.loads((job.folder / "run.json").read_text())["seconds"].values())


def main() -> int:
    """Generate, judge, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=24, help="how many assets (24)")
    parser.add_argument("--recipe", default="first-light", help="recipe name or file (first-light)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=WORKERS, help="assets at a time, one thread each (2)")
    parser.add_argument("--out", type=Path, default=None, help="outputs/first_light/RECIPE")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="changes to the recipe")
    args = parser.parse_intermixed_args()
    args.out = args.out or Path("outputs/first_light") / Path(args.recipe).stem
    args.out.mkdir(parents=True, exist_ok=True)
    check_same(args)

    todo = jobs(args.prompts, args.out)
    done = generate_all(todo, args)
    with console.status("judging"):
        classifier = load_classifier()
        judged = [score_asset(read_mesh(job.mesh), job.kind, job.color, classifier) for job in done]
    scores = {job.prompt: score for job, score in zip(done, judged, strict=True)}
    totals = summary(list(scores.values()), len(todo))
    table = report(scores, totals, {job.prompt: seconds_of(job) for job in done})
    console.print(table)
    contents = {"summary": totals, "scores": {prompt: asdict(score) for prompt, score in scores.items()}}
    (args.out / "scores.json").write_text(json.dumps(contents, indent=2))
    with (args.out / "table.md").open("w") as file:
        Console(file=file, width=120).print(table)
    if done:
        contact_sheet(done, args.out / "sheet.png")
    console.print(f"contact sheet: {args.out / 'sheet.png'}")
    return 0 if len(done) == len(todo) else 1


if __name__ == "__main__":
    sys.exit(main())

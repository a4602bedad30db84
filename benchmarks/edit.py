"""Do edits change what they name, and nothing else? Give finished toys another color and judge them.

    python benchmarks/edit.py --toys 10 [--assets DIR] [--out DIR] [key.path=value ...]

Takes the assets of `benchmarks/first_light.py` from --assets (outputs/first_light/first-light), and makes
those that are not there. Each becomes "a NEWCOLOR KIND" by `maquette edit`; the exported mesh is shown to the
classifier and measured against the one before. What is done is kept: the same command goes on where it was
stopped. Writes `scores.json`, `table.md` and `sheet.png` (each toy before, and after it below) into --out.
Fails unless color and kind are right on 8 of 10 toys while the chamfer distance stays under 2 %.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from first_light import Job, is_done, jobs
from rich.console import Console
from rich.table import Table

from maquette.apps.main import main
from maquette.data.toyworld.captions import name
from maquette.data.toyworld.palette import PALETTE
from maquette.evaluation.asset_score import AssetScore, render_views, score_asset
from maquette.evaluation.classifier import load_classifier
from maquette.evaluation.mesh_compare import compare_shapes
from maquette.io.images import write_image
from maquette.io.mesh import read_mesh

WANTED = 0.8
"""Share of the toys whose color must have changed."""
LIMIT_PERCENT = 2.0
"""Chamfer distance to the asset before, in percent of its diagonal."""
AHEAD = 3
"""The new color stands so many places after the old one in the palette."""
console = Console()


@dataclass(frozen=True)
class Judged:
    """One edit, judged."""

    score: AssetScore
    chamfer_percent: float
    seconds: float

    @property
    def good(self) -> bool:
        """Kind and new color are seen, and the shape is the old one."""
        return self.score.right and self.chamfer_percent < LIMIT_PERCENT


def edited(asset: Job, out: Path) -> Job:
    """The same toy in another color."""
    colors = list(PALETTE)
    color = colors[(colors.index(asset.color) + AHEAD) % len(colors)]
    return Job(asset.kind, color, out / f"{asset.color}-{asset.kind}-to-{color}")


def maquette(words: Sequence[str], log: Path) -> bool:
    """Run a command of maquette; what it says goes to a file."""
    with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        return main(words) == 0


def make(asset: Job, target: Job, overrides: Sequence[str]) -> bool:
    """The asset, if it is not there, and its edit, unless that is."""
    log = target.folder.with_suffix(".log")
    if not is_done(asset):
        asset.folder.parent.mkdir(parents=True, exist_ok=True)
        if not maquette(["generate", asset.prompt, "--out", str(asset.folder), "--overwrite"], log):
            return False
    if is_done(target):
        return True
    words = ["edit", str(asset.folder), "--prompt", name(target.kind, target.color)]
    return maquette([*words, "--out", str(target.folder), "--overwrite", *overrides], log)


def check_same(out: Path, asked: dict[str, object]) -> None:
    """What stands in --out already must come from the same question."""
    path = out / "asked.json"
    if path.exists() and json.loads(path.read_text()) != asked:
        raise SystemExit(f"{out} holds edits of another question, see {path}: choose another --out")
    path.write_text(json.dumps(asked))


def judge(asset: Job, target: Job, classifier: object) -> Judged:
    """What the classifier sees in an edit, and how far its surface moved."""
    before, after = read_mesh(asset.mesh), read_mesh(target.mesh)
    seconds = sum(json.loads((target.folder / "run.json").read_text())["seconds"].values())
    score = score_asset(after, target.kind, target.color, classifier)
    return Judged(score, compare_shapes(before, after).chamfer_percent, seconds)


def report(found: dict[Job, tuple[Job, Judged]], asked: int) -> Table:
    """One row an edit, the whole below."""
    good = sum(one.good for _, one in found.values())
    table = Table(title="edits", caption=f"{good} of {asked} toys: new color, same kind, same shape")
    for heading in ("before", "asked for", "seen", "right", "chamfer, % of diagonal", "seconds"):
        table.add_column(heading)
    for asset, (target, one) in found.items():
        table.add_row(
            asset.prompt,
            target.prompt,
            f"{one.score.color_seen} {one.score.kind_seen}",
            "yes" if one.good else "[red]no[/]",
            f"{one.chamfer_percent:.3f}",
            f"{one.seconds:.0f}",
        )
    return table


def contact_sheet(found: dict[Job, tuple[Job, Judged]], path: Path) -> None:
    """Eight views of every toy before, and after in the row below."""
    rows = []
    for asset, (target, _) in found.items():
        for job in (asset, target):
            rows.append(
                torch.cat(list(render_views(read_mesh(job.mesh), size=96).permute(0, 2, 3, 1)), dim=1)
            )
    write_image(path, torch.cat(rows, dim=0))


def run_benchmark() -> int:
    """Edit, judge, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toys", type=int, default=10, help="how many assets (10)")
    parser.add_argument("--assets", type=Path, default=Path("outputs/first_light/first-light"))
    parser.add_argument("--out", type=Path, default=Path("outputs/edit_benchmark"))
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="changes to the edit's recipe")
    args = parser.parse_intermixed_args()
    args.out.mkdir(parents=True, exist_ok=True)
    check_same(args.out, {"assets": str(args.assets.resolve()), "overrides": args.overrides})

    pairs = [(asset, edited(asset, args.out)) for asset in jobs(args.toys, args.assets)]
    with console.status("editing") as status:
        made = []
        for asset, target in pairs:
            status.update(f"{asset.prompt} -> {target.prompt}")
            if make(asset, target, args.overrides):
                made.append((asset, target))
            else:
                console.print(f"[red]failed[/]: {target.prompt}, see {target.folder.with_suffix('.log')}")
        status.update("judging")
        classifier = load_classifier()
        found = {asset: (target, judge(asset, target, classifier)) for asset, target in made}
    table = report(found, len(pairs))
    console.print(table)
    scores = {target.prompt: asdict(one) for target, one in found.values()}
    (args.out / "scores.json").write_text(json.dumps(scores, indent=2))
    with (args.out / "table.md").open("w") as file:
        Console(file=file, width=120).print(table)
    if found:
        contact_sheet(found, args.out / "sheet.png")
    return 0 if sum(one.good for _, one in found.values()) >= WANTED * len(pairs) else 1


if __name__ == "__main__":
    sys.exit(run_benchmark())

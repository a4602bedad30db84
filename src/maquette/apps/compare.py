"""``maquette compare A B``: how far two shapes are apart."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from maquette.apps.asset_files import (
    add_frame_arguments,
    check_frame_arguments,
    frame_of,
    progress,
    say,
)
from maquette.apps.generate import positive
from maquette.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.epilog = (
        "Both are read in the world frame, so a .glb and an .stl of one asset are the same shape. Points\n"
        "are drawn from both surfaces; the same shape twice has distance 0.\n\n"
        "examples:\n"
        "  maquette compare mesh.glb scan.ply\n"
        "  maquette compare mesh.glb simple.glb --tolerance 0.01 --json > numbers.json\n"
        "  maquette compare a.glb b.obj --in-up y          the OBJ is y up"
    )
    parser.add_argument("a", metavar="A", help="the reference: a mesh, or points (.ply)")
    parser.add_argument("b", metavar="B", help="the other")
    parser.add_argument(
        "--points", type=positive, default=100_000, metavar="N", help="points from each (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="other points (%(default)s)")
    parser.add_argument(
        "--tolerance", type=_length, metavar="T", help="of the F-score, world units (1 %% of A's diagonal)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_frame_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Compare and print."""
    from maquette.evaluation.mesh_compare import compare_shapes

    check_frame_arguments(args, args.a, args.b)
    with progress() as step:
        step("reading")
        shapes = [_shape(path, args) for path in (args.a, args.b)]
        step("comparing")
        found = compare_shapes(shapes[0], shapes[1], args.points, args.seed, args.tolerance).as_dict()
    if args.json:
        say(json.dumps({"a": args.a, "b": args.b, **found}, indent=2))
    else:
        say(*_lines(args, found))
    return 0


def _shape(path: str, args: argparse.Namespace) -> Any:
    from maquette.io.assets import read_asset
    from maquette.ops.gaussians import Gaussians

    asset = read_asset(path, **frame_of(path, args))
    if isinstance(asset, Gaussians):
        raise UserError(f"{path} holds splats, which have no surface.", hint="maquette convert them first")
    return asset


def _lines(args: argparse.Namespace, found: dict[str, Any]) -> list[str]:
    volumes = ["-" if one is None else f"{one:.6g}" for one in found["volumes"]]
    boxes = [
        " x ".join(f"{high - low:.4g}" for low, high in zip(*box, strict=True)) for box in found["boxes"]
    ]
    noise = "" if found["chamfer"] > found["spacing"] or not found["chamfer"] else "  (within sampling noise)"
    return [
        f"chamfer   {found['chamfer']:.6g}  ({found['chamfer_percent']:.3f} % of the diagonal){noise}",
        f"F-score   {found['f_score']:.4f}  within {found['tolerance']:.4g}",
        f"volume    {volumes[0]}  and  {volumes[1]}",
        f"size      {boxes[0]}  and  {boxes[1]}",
        f"points    {found['points']} from each, about {found['spacing']:.2g} apart, seed {args.seed}",
    ]


def _length(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no length above zero")
    return value

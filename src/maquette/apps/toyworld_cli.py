"""``maquette toyworld``: pictures of the procedural toys, and the toys as meshes."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from maquette.core.errors import UnknownNameError, UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two actions."""
    actions = parser.add_subparsers(dest="action", metavar="render|mesh", required=True)
    render = actions.add_parser("render", help="PNG pictures with captions.jsonl (--toy: metadata.jsonl)")
    render.add_argument("--out", required=True, metavar="DIR", help="new or empty folder")
    render.add_argument("--count", type=int, default=64, metavar="N", help="pictures (%(default)s)")
    render.add_argument("--seed", type=int, default=0, metavar="S", help="other pictures (%(default)s)")
    render.add_argument("--size", type=int, default=64, metavar="P", help="rows and columns (%(default)s)")
    render.add_argument(
        "--toy", nargs=2, metavar=("COLOUR", "KIND"), help="one toy from all around; also a turtle, held out"
    )
    mesh = actions.add_parser("mesh", help="one toy as a file: .glb, .obj, .ply, .stl")
    mesh.add_argument("kind", metavar="KIND", help="for example car")
    mesh.add_argument("color", metavar="COLOUR", help="for example red")
    mesh.add_argument("--out", required=True, metavar="F", help="the file")


def main(args: argparse.Namespace) -> int:
    """Do the action and print where the result is."""
    done = _render(args) if args.action == "render" else _mesh(args)
    Console(highlight=False, soft_wrap=True).print(done)
    return 0


def _render(args: argparse.Namespace) -> str:
    from maquette.data.toyworld.album import write_album, write_toy

    if args.count < 1 or args.size < 8:
        raise UserError("--count must be at least 1 and --size at least 8.")
    folder = Path(args.out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not empty.", hint="choose another folder for --out")
    if args.toy:
        color, kind = args.toy
        return f"{args.count} pictures and {write_toy(folder, kind, color, args.count, args.seed, args.size)}"
    labels = write_album(folder, args.count, args.seed, args.size)
    return f"{args.count} pictures and {labels}"


def _mesh(args: argparse.Namespace) -> str:
    from maquette.data.toyworld.held_out import HELD_OUT
    from maquette.data.toyworld.kinds import KINDS
    from maquette.data.toyworld.mesh import colored_toy
    from maquette.data.toyworld.palette import PALETTE
    from maquette.io.mesh import write_mesh

    _check("kind of toy", args.kind, {**KINDS, **HELD_OUT})
    _check("colour", args.color, PALETTE)
    return str(write_mesh(colored_toy(args.kind, args.color), args.out)[0])


def _check(what: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name not in names:
        raise UnknownNameError(what, name, difflib.get_close_matches(name, names, n=3) or names)

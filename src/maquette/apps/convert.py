"""``maquette convert IN OUT``: one format, kind of asset, size, frame as another."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from maquette.apps.asset_files import (
    Steps,
    add_frame_arguments,
    check_frame_arguments,
    check_output,
    frame_of,
    progress,
    say,
)
from maquette.apps.generate import positive
from maquette.core.errors import UserError

KINDS = ("mesh", "points", "splats")
SUFFIXES = (".glb", ".obj", ".ply", ".stl", ".usd", ".usda", ".usdc", ".usdz")
WITHOUT_TEXTURE = (".ply", ".stl")
SPLATS = 20_000
RESOLUTION = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.epilog = (
        "Reads and writes .glb .obj .ply .stl .usd .usda .usdc .usdz, and reads .gltf and .off; a .ply may\n"
        "be a mesh, points, or splats, and is written as the kind that came in unless --as tells. What each\n"
        "format carries: docs/files.md. Everything written is reopened and compared before it counts.\n\n"
        "examples:\n"
        "  maquette convert mesh.glb mesh.obj --up y                 for a program that wants y up\n"
        "  maquette convert mesh.glb print.stl --repair --units mm   for a slicer\n"
        "  maquette convert big.glb small.glb --decimate 5000 --texture-size 512 --texture-format jpg\n"
        "  maquette convert mesh.glb cloud.ply --points 50000\n"
        "  maquette convert splats.ply surface.glb                   a mesh of what the splats show\n"
        "  maquette convert mesh.glb splats.ply --as splats"
    )
    parser.add_argument("input", metavar="IN", help="the file to read")
    parser.add_argument("out", metavar="OUT", help="the file to write; its suffix is the format")
    parser.add_argument("--as", dest="kind", choices=KINDS, help="what a .ply shall hold (what came in)")
    parser.add_argument("--up", choices=("y", "z"), help="up axis of OUT (z; y for .glb, always)")
    parser.add_argument("--units", metavar="U", help="of OUT: m dm cm mm in ft (m; always for .glb)")
    parser.add_argument("--decimate", type=positive, metavar="N", help="at most about N faces")
    parser.add_argument("--texture-size", type=positive, metavar="S", help="side of the texture maps, texels")
    parser.add_argument("--texture-format", choices=("png", "jpg"), help="(png; jpg for .obj)")
    parser.add_argument("--unlit", action="store_true", help="a .glb shows its colors without light")
    parser.add_argument(
        "--repair", action="store_true", help="weld, close holes, make manifold, turn outward"
    )
    parser.add_argument("--points", type=positive, metavar="N", help="N points into a .ply")
    parser.add_argument("--splats", type=positive, metavar="N", help=f"N splats into a .ply ({SPLATS})")
    parser.add_argument(
        "--resolution", type=positive, metavar="R", help=f"of a mesh of splats ({RESOLUTION})"
    )
    parser.add_argument("--seed", type=int, metavar="S", help="of points drawn from a mesh (0)")
    parser.add_argument("--report", action="store_true", help="also NAME.report.json: is the mesh healthy")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    add_frame_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Convert, and print what was written and what it is."""
    from maquette.io.mesh_report import report_path

    out = check_output(args.out, SUFFIXES, args.overwrite)
    check_frame_arguments(args, args.input)
    if args.report:
        check_output(report_path(out), (".json",), args.overwrite)
    with progress() as step:
        step("reading")
        from maquette.io.assets import read_asset

        asset = read_asset(args.input, **frame_of(args.input, args))
        kind = _kind_of_result(asset, out, args)
        write = {"mesh": _write_mesh, "points": _write_points, "splats": _write_splats}[kind]
        lines = write(asset, out, args, step)
    say(*lines)
    return 0


def _kind_of_result(asset: Any, out: Path, args: argparse.Namespace) -> str:
    from maquette.ops.gaussians import Gaussians
    from maquette.ops.mesh import Mesh

    came = "mesh" if isinstance(asset, Mesh) else "splats" if isinstance(asset, Gaussians) else "points"
    told = args.kind or ("points" if args.points else "splats" if args.splats else None)
    kind = told or (came if out.suffix.lower() == ".ply" else "mesh")
    if kind != "mesh" and out.suffix.lower() != ".ply":
        raise UserError(f"{kind.capitalize()} are written as .ply, not {out.suffix}.")
    if came == "points" and kind == "mesh":
        raise UserError(
            f"{args.input} holds points: a mesh of them is a reconstruction.",
            hint=f"maquette mesh-from-points {args.input} {out}",
        )
    _check_options(came, kind, out, args, bool(getattr(asset, "texture", None)))
    return kind


def _check_options(came: str, kind: str, out: Path, args: argparse.Namespace, has_maps: bool) -> None:
    """Refuse what would change nothing for what came in and what is written."""
    mesh = kind == "mesh"
    textured = mesh and has_maps and out.suffix.lower() not in WITHOUT_TEXTURE
    applies = {
        "decimate": (mesh, "meshes"),
        "repair": (mesh, "meshes"),
        "report": (mesh, "meshes"),
        "texture_size": (textured, "a mesh that came with textures, as .glb, .obj or USD"),
        "texture_format": (textured, "a mesh that came with textures, as .glb, .obj or USD"),
        "unlit": (out.suffix.lower() == ".glb", ".glb"),
        "points": (kind == "points", "a .ply of points"),
        "splats": (kind == "splats" != came, "splats that are made of a mesh or of points"),
        "resolution": (mesh and came == "splats", "a mesh that is made of splats"),
        "seed": (kind == "points" and came == "mesh", "points that are drawn from a mesh"),
    }
    for name, (fits, when) in applies.items():
        given = getattr(args, name)
        if not fits and given is not None and given is not False:
            pair = f"here: {came} ({Path(args.input).suffix}) to {kind} ({out.suffix})"
            raise UserError(f"--{name.replace('_', '-')} is for {when}.", [pair])


def _write_mesh(asset: Any, out: Path, args: argparse.Namespace, step: Steps) -> list[Any]:
    from maquette.evaluation.asset_changes import simplified, surface_of_splats, with_texture_size
    from maquette.io.mesh import write_mesh
    from maquette.io.mesh_report import write_report
    from maquette.io.repair import repaired
    from maquette.ops.gaussians import Gaussians
    from maquette.ops.mesh_health import mesh_report

    mesh, notes = asset, []
    if isinstance(asset, Gaussians):
        step("surface")
        mesh = surface_of_splats(Path(args.input), asset, args.resolution or RESOLUTION)
    if args.repair:
        step("repairing")
        mesh, done = repaired(mesh)
        notes.append(f"repair: {done}")
        if mesh.n_faces == 0:
            raise UserError(
                f"Nothing of {args.input} is left after repair: its surface encloses nothing.",
                hint="a sheet has no inside: leave --repair away, and write .glb or .ply",
            )
    if args.decimate and mesh.n_faces > args.decimate:
        step("simplifying")
        lost = "normal" in mesh.texture
        mesh = simplified(mesh, args.decimate, args.texture_size)
        notes += ["the normal map belonged to the faces that are gone, and went with them"] if lost else []
    if args.texture_size:
        mesh = with_texture_size(mesh, args.texture_size)
    step("writing")
    files = write_mesh(mesh, out, up=args.up, units=args.units or "m", **_options(args))
    files += [write_report(mesh, out)] if args.report else []
    report = mesh_report(mesh)
    state = "closed" if report.closed else "not closed" if report.manifold else "not manifold"
    return [f"{report.faces} faces, {report.components} pieces, {state}", *notes, *files]


def _options(args: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {"texture_format": args.texture_format} if args.texture_format else {}
    options |= {"unlit": True} if args.unlit else {}
    return options | ({"repair": True} if args.repair else {})


def _write_points(asset: Any, out: Path, args: argparse.Namespace, step: Steps) -> list[Any]:
    from maquette.evaluation.asset_changes import as_points
    from maquette.io.frames import UNITS, check_frame
    from maquette.io.gltf import to_gltf_axes
    from maquette.io.ply import write_points

    up, units = args.up or "z", args.units or "m"
    check_frame(up, units)
    cloud = as_points(asset, args.points, args.seed or 0)
    if up == "y":
        normals = None if cloud.normals is None else to_gltf_axes(cloud.normals)
        cloud = cloud.replace(points=to_gltf_axes(cloud.points), normals=normals)
    step("writing")
    written = cloud.replace(points=cloud.points / UNITS[units])
    return [f"{cloud.n_points} points", write_points(written, out, [f"up {up}", f"units {units}"])]


def _write_splats(asset: Any, out: Path, args: argparse.Namespace, step: Steps) -> list[Any]:
    from maquette.evaluation.asset_changes import splats_of
    from maquette.io.splats import write_splats
    from maquette.ops.gaussians import Gaussians

    if args.up == "y" or args.units not in (None, "m"):
        raise UserError("Splats are written z up and in metres, as they are optimised.")
    if not isinstance(asset, Gaussians):
        if args.in_up == "y" or args.in_units not in (None, "m"):
            raise UserError("Splats are made of files that are z up and in metres.", hint="convert it first")
        step("surface")
        asset = splats_of(Path(args.input), args.splats or SPLATS)
    step("writing")
    return [f"{asset.n} splats", write_splats(asset, out)]

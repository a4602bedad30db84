"""``maquette mesh-from-points CLOUD OUT``: a surface through scattered points."""

from __future__ import annotations

import argparse

from maquette.apps.asset_files import add_frame_arguments, check_output, progress, say
from maquette.core.errors import UserError

METHODS = ("poisson", "ball-pivoting")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.epilog = (
        "poisson gives a smooth closed surface, also over gaps; ball-pivoting goes through the points\n"
        "themselves and leaves holes where there are none. A cloud without normals gets them estimated.\n"
        "Needs open3d: pip install 'maquette[points]'. It works without a display.\n\n"
        "examples:\n"
        "  maquette mesh-from-points scan.ply scan.glb\n"
        "  maquette mesh-from-points scan.ply scan.stl --depth 9 --repair\n"
        "  maquette mesh-from-points scan.ply raw.glb --method ball-pivoting --in-up y"
    )
    parser.add_argument("cloud", metavar="CLOUD", help="points in a .ply, with or without colors and normals")
    parser.add_argument("out", metavar="OUT", help="the mesh: .glb .obj .ply .stl .usd .usda .usdc .usdz")
    parser.add_argument("--method", choices=METHODS, default=METHODS[0], help="(%(default)s)")
    parser.add_argument(
        "--depth",
        type=int,
        default=7,
        metavar="D",
        help="of poisson: 2^D cells a side, 3 to 12 (%(default)s)",
    )
    parser.add_argument("--repair", action="store_true", help="close what stays open")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")
    add_frame_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Make the mesh and print where it is."""
    from maquette.io.assets import read_asset
    from maquette.io.mesh import MESH_SUFFIXES, write_mesh
    from maquette.io.reconstruct import surface_of_points
    from maquette.io.repair import closed
    from maquette.ops.mesh_health import mesh_report
    from maquette.ops.point_cloud import PointCloud

    out = check_output(args.out, MESH_SUFFIXES, args.overwrite)
    with progress() as step:
        step("reading")
        cloud = read_asset(args.cloud, up=args.in_up, units=args.in_units)
        if not isinstance(cloud, PointCloud):
            raise UserError(f"{args.cloud} is not a cloud of points.", hint="maquette convert reads meshes")
        step("surface")
        mesh = surface_of_points(cloud, args.method, args.depth)
        mesh = closed(mesh) if args.repair else mesh
        step("writing")
        files = write_mesh(mesh, out)
    report = mesh_report(mesh)
    state = "closed" if report.closed else f"open at {report.boundary_edges} edges of {report.holes} holes"
    say(f"{cloud.n_points} points -> {report.faces} faces, {report.components} pieces, {state}", *files)
    return 0

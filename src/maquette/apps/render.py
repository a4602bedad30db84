"""``maquette render ASSET --out F``: pictures of a mesh, of splats or of points, without a display."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from maquette.apps.asset_files import (
    add_frame_arguments,
    check_frame_arguments,
    check_output,
    color,
    frame_of,
    picture_size,
    progress,
    say,
)
from maquette.apps.generate import positive
from maquette.core.errors import UserError

PICTURES, VIDEOS = (".png", ".jpg", ".jpeg"), (".mp4", ".gif")
AT_ONCE = 4
TURN = 48
"""Frames of a video, unless told."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.epilog = (
        "A picture shows one view, or --views beside each other; a video is one turn. Azimuth 0 is the\n"
        "front, 90 the viewer's right. Depth is the distance along each ray, world units (float32), 0 where\n"
        "nothing is; of several views it is an array (views, rows, columns).\n\n"
        "examples:\n"
        "  maquette render mesh.glb --out front.png\n"
        "  maquette render mesh.glb --out sheet.png --views 4 --size 320x240 --elevation 30\n"
        "  maquette render splats.ply --out turn.mp4 --depth turn.npy --background black\n"
        "  maquette render mesh.glb --out a.png --azimuth 45 --depth a.npy --normal a_normal.png"
    )
    parser.add_argument("asset", metavar="ASSET", help="a mesh, or a .ply of splats or points")
    parser.add_argument("--out", required=True, metavar="F", help="F.png, F.jpg, F.mp4 or F.gif")
    parser.add_argument("--depth", metavar="F.npy", help="also the depth")
    parser.add_argument("--normal", metavar="F", help="also world normals: .npy, or a picture of (n + 1) / 2")
    parser.add_argument(
        "--size", type=picture_size, default=(512, 512), metavar="WxH", help="pixels (512x512)"
    )
    for name, default, text in (
        ("azimuth", 0.0, "of the first view, degrees (%(default)s)"),
        ("elevation", 15.0, "degrees above the horizon (%(default)s)"),
        ("distance", None, "of the camera from the middle (all of the asset fits)"),
        ("fov", 35.0, "vertical field of view, degrees (%(default)s)"),
    ):
        parser.add_argument(f"--{name}", type=float, default=default, metavar="X", help=text)
    parser.add_argument(
        "--views", type=positive, metavar="N", help=f"around the asset (1; of a video {TURN})"
    )
    parser.add_argument("--fps", type=positive, default=24, metavar="N", help="of a video (%(default)s)")
    parser.add_argument(
        "--shading", choices=("lambert", "albedo"), default="lambert", help="of a mesh (%(default)s)"
    )
    parser.add_argument(
        "--background", type=color, default="white", metavar="C", help="white, black, grey, #rrggbb or r,g,b"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    add_frame_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Draw, write, and print what was written."""
    out = check_output(args.out, (*PICTURES, *VIDEOS), args.overwrite)
    depth = check_output(args.depth, (".npy",), args.overwrite) if args.depth else None
    normal = check_output(args.normal, (".npy", *PICTURES), args.overwrite) if args.normal else None
    check_frame_arguments(args, args.asset)
    _check_numbers(args)
    drawn = _drawn(args, out.suffix.lower() in VIDEOS)
    from maquette.io.data import write_npy
    from maquette.io.images import write_image
    from maquette.io.video import write_video
    from maquette.ops.shading import normal_to_color

    if out.suffix.lower() in VIDEOS:
        files = [write_video(out, drawn["rgb"].clamp(0, 1), fps=args.fps)]
    else:
        files = [write_image(out, _beside(drawn["rgb"]))]
    if depth is not None:
        files.append(write_npy(depth, _single(drawn["depth"][..., 0])))
    if normal is not None and normal.suffix.lower() == ".npy":
        files.append(write_npy(normal, _single(drawn["normal"])))
    elif normal is not None:
        shown = normal_to_color(drawn["normal"]) * (drawn["opacity"] > 0.5)
        files.append(write_image(normal, _beside(shown)))
    say(*files)
    return 0


def _drawn(args: argparse.Namespace, video: bool) -> dict[str, Any]:
    import torch

    from maquette.evaluation.asset_views import View, pictures
    from maquette.io.assets import read_asset

    views = args.views or (TURN if video else 1)
    view = View(
        width=args.size[0],
        height=args.size[1],
        elevation=args.elevation,
        distance=args.distance,
        fovy=args.fov,
        shading=args.shading,
        background=args.background,
    )
    wanted = {"rgb", *(["depth"] if args.depth else []), *(["normal", "opacity"] if args.normal else [])}
    parts = []
    with progress() as step, torch.no_grad():
        step("reading")
        asset = read_asset(args.asset, **frame_of(args.asset, args))
        azimuth = args.azimuth + torch.arange(views) * (360.0 / views)
        for start in range(0, views, AT_ONCE):
            step("rendering", start, views)
            drawn = pictures(asset, azimuth[start : start + AT_ONCE], view)
            parts.append({name: drawn[name] for name in wanted})
    return {name: torch.cat([part[name] for part in parts]) for name in wanted}


def _beside(images: Any) -> Any:
    """Pictures (B, H, W, C) next to each other."""
    import torch

    return torch.cat(list(images), dim=1).clamp(0, 1)


def _single(values: Any) -> Any:
    return values[0] if len(values) == 1 else values


def _check_numbers(args: argparse.Namespace) -> None:
    if not all(math.isfinite(one) for one in (args.azimuth, args.elevation)) or not -90 < args.elevation < 90:
        raise UserError("--azimuth is any angle, --elevation one between -90 and 90.")
    if args.distance is not None and not 0.0 < args.distance < math.inf:
        raise UserError(f"--distance is above 0, not {args.distance}.")
    if not 1.0 <= args.fov <= 170.0:
        raise UserError(f"--fov is an angle from 1 to 170 degrees, not {args.fov}.")
    paths = [Path(one) for one in (args.out, args.depth, args.normal) if one]
    if len({path.resolve() for path in paths}) != len(paths):
        raise UserError("--out, --depth and --normal are different files.")

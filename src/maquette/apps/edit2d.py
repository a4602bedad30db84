"""``maquette edit2d BEFORE AFTER``: Prompt-to-Prompt on a picture, as a sheet to look at."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console
from rich.progress import Progress

from maquette.apps.asset_files import check_output
from maquette.core.errors import UserError
from maquette.core.paths import EMBEDDED_PRIOR

CELL = 192
"""Pixels a side of each picture on the sheet."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.epilog = (
        "examples:\n"
        '  maquette edit2d "a red mushroom , front view" "a blue mushroom , front view" --out sheet.png\n'
        '  maquette edit2d "a car" "a red car" --refine --reweight red=2 --out sheet.png\n\n'
        "The sheet's first row: before, after, and what the second prompt gives without control.\n"
        "Below, where each word of both prompts was seen. A prompt is read as it is, view words included."
    )
    parser.add_argument("source", metavar="BEFORE", help="prompt of the picture to edit")
    parser.add_argument("target", metavar="AFTER", help="prompt of what it should become")
    parser.add_argument("--out", required=True, metavar="F.png", help="the sheet")
    parser.add_argument("--prior", default=EMBEDDED_PRIOR, metavar="P", help="diffusion model (%(default)s)")
    parser.add_argument("--refine", action="store_true", help="exchanged words are new, not swapped")
    shares = {"--cross": (0.8, "cross-attention is"), "--self": (0.4, "self-attention, the layout, is")}
    for flag, (share, what) in shares.items():
        text = f"share of the denoising in which {what} carried over (%(default)s)"
        parser.add_argument(flag, type=float, default=share, metavar="S", help=text, dest=f"{flag[2:]}_until")
    text = "a word of AFTER to make stronger (above 1) or weaker; may be repeated"
    parser.add_argument("--reweight", action="append", default=[], metavar="WORD=W", help=text)
    text = "keep the picture as it was outside of the places of these words"
    parser.add_argument("--blend", nargs=2, metavar=("OLD", "NEW"), help=text)
    parser.add_argument("--scale", type=float, default=7.5, metavar="S", help="guidance scale (%(default)s)")
    parser.add_argument("--steps", type=int, default=25, metavar="N", help="denoising steps (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another picture (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace the sheet if it is there")


def main(args: argparse.Namespace) -> int:
    """Edit and write the sheet."""
    out = check_output(args.out, (".png", ".jpg", ".jpeg"), args.overwrite)
    if args.steps < 1:
        raise UserError("--steps must be at least 1.")
    from maquette.diffusion.editing import edit_pictures
    from maquette.io.images import write_image

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("denoising", total=2 * args.steps)
        edited = edit_pictures(_question(args), lambda done, total: bar.update(task, completed=done))
    write_image(out, sheet(edited))
    Console(highlight=False, soft_wrap=True).print(str(out))
    return 0


def sheet(edited: Any) -> Any:
    """Pictures in the first row, the words of both prompts in the rows below."""
    import torch

    from maquette.io.lettering import with_text
    from maquette.ops.image import resize

    def cell(picture: Any, label: str) -> Any:
        return with_text(resize(picture, CELL, CELL), label)

    def heat(maps: dict[str, Any], label: str) -> list[Any]:
        shown = [(word, one / one.max().clamp_min(1e-12)) for word, one in maps.items()]
        return [cell(one[..., None].expand(*one.shape, 3), f"{label}: {word}") for word, one in shown]

    pictures = {"before": edited.before, "after": edited.after, "without control": edited.without_control}
    rows = [
        [cell(picture, label) for label, picture in pictures.items()],
        heat(edited.maps_before, "before"),
        heat(edited.maps_after, "after"),
    ]
    width = max(map(len, rows))
    blank = torch.zeros(CELL, CELL, 3)
    return torch.cat([torch.cat(row + [blank] * (width - len(row)), dim=1) for row in rows], dim=0)


def _question(args: argparse.Namespace) -> Any:
    from maquette.diffusion.editing import PictureEdit
    from maquette.diffusion.prompt_to_prompt import EditOptions

    weights = dict(map(_weight, args.reweight))
    return PictureEdit(
        model=args.prior,
        source=args.source,
        target=args.target,
        replace=not args.refine,
        options=EditOptions(cross_until=args.cross_until, self_until=args.self_until, reweight=weights),
        blend=None if args.blend is None else ([args.blend[0]], [args.blend[1]]),
        guidance_scale=args.scale,
        steps=args.steps,
        seed=args.seed,
    )


def _weight(text: str) -> tuple[str, float]:
    word, _, number = text.partition("=")
    try:
        return word, float(number)
    except ValueError:
        raise UserError(f"--reweight {text} is no weight of a word.", hint="--reweight red=2") from None

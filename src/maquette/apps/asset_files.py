"""What the commands about files share: where a result may go, and what words of options mean."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from maquette.apps.progress_bar import ProgressBar
from maquette.core.errors import UserError
from maquette.core.log import setup_logging
from maquette.core.paths import safe_name
from maquette.core.progress import ProgressEvent

UNITS = "m dm cm mm in ft"
OBJ_MAPS = ("kd", "pr", "pm", "norm")
USD_MAPS = ("base_color", "metallic_roughness", "normal")
FRAMED = (".glb", ".gltf", ".usd", ".usda", ".usdc", ".usdz")
"""Formats that say which way is up, and how long a unit is."""


def add_frame_arguments(parser: argparse.ArgumentParser) -> None:
    """How to read files that do not say which way is up."""
    parser.add_argument("--in-up", choices=("y", "z"), help="up axis of an input that does not say (z)")
    parser.add_argument("--in-units", metavar="U", help=f"units of an input that does not say: {UNITS} (m)")


def frame_of(path: str, args: argparse.Namespace) -> dict[str, str | None]:
    """The options of `add_frame_arguments` for a file, unless its format says itself which way is up."""
    known = Path(path).suffix.lower() in FRAMED
    return {"up": None, "units": None} if known else {"up": args.in_up, "units": args.in_units}


def check_frame_arguments(args: argparse.Namespace, *paths: str) -> None:
    """Refuse `--in-up` and `--in-units` where every file says itself which way is up.

    Raises:
        UserError: naming the option.
    """
    given = [name for name in ("--in-up", "--in-units") if getattr(args, name[2:].replace("-", "_"))]
    if given and all(Path(path).suffix.lower() in FRAMED for path in paths):
        names = " and ".join(dict.fromkeys(paths))
        raise UserError(f"{given[0]} is for files that do not say their axes and units, unlike {names}.")


def picture_size(text: str) -> tuple[int, int]:
    """Width and height of WxH, or of one number for both."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.lower())
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= min(width, height) <= max(width, height) <= 8192:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 512 or 640x480 (8192 at most)")
    return width, height


def color(text: str) -> tuple[float, float, float]:
    """white, black, grey, #rrggbb, or three numbers in [0, 1] with commas between."""
    named = {"white": "#ffffff", "black": "#000000", "grey": "#a8b0bd", "gray": "#a8b0bd"}
    text = named.get(text.lower(), text)
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        red, green, blue = (int(text[k : k + 2], 16) / 255 for k in (1, 3, 5))
        return red, green, blue
    try:
        red, green, blue = (float(one) for one in text.split(","))
        inside = all(0.0 <= one <= 1.0 for one in (red, green, blue))
    except ValueError:
        inside = False
    if not inside:
        raise argparse.ArgumentTypeError(f"{text!r} is no color: white, black, grey, #rrggbb or 0.2,0.4,1")
    return red, green, blue


def check_output(out: str | Path, suffixes: tuple[str, ...], overwrite: bool) -> Path:
    """The path of a result that may be written.

    Raises:
        UserError: another suffix, a folder, or something is there already.
    """
    path = Path(out)
    if path.suffix.lower() not in suffixes:
        given = path.suffix or "no suffix"
        raise UserError(f"The result cannot be {given}: {path}", hint=f"end it in {', '.join(suffixes)}")
    if path.is_dir():
        raise UserError(f"{path} is a folder, and the result is a file.")
    there = [one for one in (path, *_beside(path)) if one.exists()]
    if there and not overwrite:
        raise UserError(f"{there[0]} is there already.", hint="--overwrite replaces it")
    return path


def _beside(path: Path) -> list[Path]:
    """Files that come with one of the formats that put their material or textures next to them."""
    stem, suffix = safe_name(path.stem), path.suffix.lower()
    if suffix == ".obj":
        names = [f"{stem}.mtl", *(f"{stem}_{one}.{kind}" for one in OBJ_MAPS for kind in ("png", "jpg"))]
    elif suffix in (".usd", ".usda", ".usdc"):
        names = [f"{stem}_{one}.{kind}" for one in USD_MAPS for kind in ("png", "jpg")]
    else:
        names = []
    return [path.with_name(name) for name in names]


class Steps:
    """Announces what is being done, one phase after the other."""

    def __init__(self, bar: ProgressBar) -> None:
        self._bar = bar
        self._started = time.monotonic()

    def __call__(self, phase: str, done: int = 0, total: int = 0) -> None:
        """Now doing `phase`, of which `done` parts of `total` are finished."""
        if done == 0:
            self._started = time.monotonic()
        seconds = max(time.monotonic() - self._started, 1e-6)
        eta = seconds / done * (total - done) if done else None
        self._bar(ProgressEvent(done, total, done / seconds, eta, phase))


@contextmanager
def progress() -> Iterator[Steps]:
    """A bar on stderr while something long goes on; messages go above it."""
    with ProgressBar(Console(stderr=True)) as bar:
        setup_logging(False, bar.log_handler())
        yield Steps(bar)


def say(*lines: Any) -> None:
    """Lines of the result, on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(str(line), markup=False)

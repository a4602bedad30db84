"""``maquette attribute RUN --word W``: which word made which part of an asset."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from maquette.apps.asset_files import progress, say
from maquette.core.errors import ConfigError, MissingFileError

SHEET_VIEWS = 8
"""Views of the sheet, of those on the middle height."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.epilog = (
        "Views of the asset are shown to the model that guided it; where they look at the word is brought\n"
        "back onto the surface. Writes attribution/WORD.glb, from dark (not this word) to bright, and\n"
        "attribution/WORD.png, the views above what the word saw in them, into the run folder.\n\n"
        "examples:\n"
        "  maquette attribute outputs/mushroom --word red\n"
        "  maquette attribute outputs/mushroom --word red --word mushroom"
    )
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, with mesh.glb and config.yaml")
    text = "a word of its prompt; may be repeated"
    parser.add_argument("--word", action="append", required=True, metavar="W", help=text)
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="other noise (%(default)s)")


def main(args: argparse.Namespace) -> int:
    """Attribute, write, and print where it is."""
    from maquette.core.config import load_config
    from maquette.evaluation.attribution import attribute
    from maquette.io.mesh import read_mesh
    from maquette.models.prompt_processors.directions import four_views, parse_directions

    run = Path(args.run)
    for name in ("mesh.glb", "config.yaml"):
        if not (run / name).is_file():
            raise MissingFileError(run / name, "file of a finished run")
    cfg = load_config(run / "config.yaml")
    prompt = cfg.system.get("prompt_processor") or {}
    if not prompt.get("prompt"):
        raise ConfigError("system.prompt_processor.prompt", None, "the prompt that the asset was made from")
    with progress() as step:
        step("looking")
        found = attribute(
            read_mesh(run / "mesh.glb"),
            prompt["prompt"],
            list(dict.fromkeys(args.word)),
            prompt["pretrained_model_name_or_path"],
            parse_directions(prompt.get("directions", "default"), four_views()),
            distance=float(cfg.data.get("eval_camera_distance", 2.8)),
            fovy_deg=float(cfg.data.get("eval_fovy_deg", 40.0)),
            seed=args.seed,
        )
        step("writing")
        files = [path for one in found.values() for path in _write(one, run)]
    say(*map(str, files))
    return 0


def _write(found: Any, run: Path) -> list[Path]:
    from maquette.io.images import write_image
    from maquette.io.mesh import read_mesh, write_mesh
    from maquette.ops.mesh import Mesh
    from maquette.training.saving.pictures import colored

    folder = run / "attribution"
    mesh = read_mesh(run / "mesh.glb")
    colors = colored(found.vertices[None], "magma")[0]
    painted = Mesh(mesh.vertices, mesh.faces, vertex_colors=colors)
    paths = write_mesh(painted, folder / f"{found.word}.glb")
    return [paths[0], write_image(folder / f"{found.word}.png", _sheet(found))]


def _sheet(found: Any) -> Any:
    import torch

    from maquette.training.saving.pictures import colored

    middle = slice(SHEET_VIEWS, 2 * SHEET_VIEWS)
    views = torch.cat(list(found.views[middle]), dim=1)
    maps = torch.cat([colored(one, "magma") for one in found.maps[middle]], dim=1)
    return torch.cat([views, maps], dim=0)

"""``maquette launch``: a recipe, carried out."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from maquette.apps.running import add_output_arguments, execute, load
from maquette.core.errors import MissingFileError, UserError
from maquette.training.mode import MODES
from maquette.training.replacing import OldRun
from maquette.training.run_folder import RunFolder

ACCEPTS_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.epilog = (
        "Settings of the recipe follow as key.path=value, for example trainer.max_steps=2000. In a recipe\n"
        "with stages they change every stage; stages.1.trainer.max_steps=50 changes the second one alone."
    )
    parser.add_argument(
        "--config", metavar="F", help="recipe: a YAML file, or the name of one that comes along"
    )
    for mode, text in zip(
        MODES, ("optimise, then test and export", "a few views", "all views", "files"), strict=True
    ):
        parser.add_argument(f"--{mode}", action="store_true", help=text)
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="a run folder, or a checkpoint in it: go on with it, or use its weights",
    )
    parser.add_argument(
        "--gpu",
        metavar="N",
        help="GPU to use, counted from 0, or several (0,1); CUDA_VISIBLE_DEVICES wins (default: 0)",
    )
    parser.add_argument("--gradio", action="store_true", help="live page (not available yet)")
    parser.add_argument("--typecheck", action="store_true", help="check shapes of tensors at run time (slow)")
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Carry out the one mode that was asked for."""
    mode = chosen_mode(args)
    if args.gradio:
        raise UserError("The live page is not available yet.", hint="leave --gradio out")
    if args.typecheck:
        check_shapes()
    config, resume, folder = _sources(args)
    options: dict[str, Any] = {"run_dir": str(folder) if folder and args.out is None else None}
    if args.gpu is not None:
        options |= choose_gpus(args.gpu)
    cfg = load(config, args.overrides, options, args)
    if args.gpu is None:
        devices = cfg.trainer.get("devices", 1)
        choose_gpus(",".join(map(str, range(devices if isinstance(devices, int) and devices > 1 else 1))))
    return execute(cfg, mode, args, raw=args.config, resume=resume)


def chosen_mode(args: argparse.Namespace) -> str:
    """The mode; ``--resume`` alone means train.

    Raises:
        UserError: none was given, or two.
    """
    asked = [mode for mode in MODES if getattr(args, mode)]
    if len(asked) > 1:
        raise UserError(f"Only one mode at a time, not {' and '.join('--' + mode for mode in asked)}.")
    if not asked and args.resume is None:
        raise UserError("No mode was given.", hint="add one of --train, --validate, --test, --export")
    return asked[0] if asked else "train"


def check_shapes() -> None:
    """Have jaxtyping check the annotations of every module imported from here on."""
    from maquette.core.typecheck import install_typecheck

    install_typecheck()


def choose_gpus(spec: str) -> dict[str, Any]:
    """Show the GPUs of ``--gpu`` to this process; options of a recipe for a process on each, if there are
    several.

    Raises:
        UserError: it is no list of numbers.
    """
    if not re.fullmatch(r"\d+(,\d+)*", spec):
        raise UserError(f"--gpu takes a number, or several as in 0,1, not {spec!r}.")
    from maquette.core.device import gpu_count, select_gpus

    select_gpus(spec)
    count = gpu_count() if "," in spec else 1
    return {"trainer.devices": count, "n_gpus": count} if count > 1 else {}


def _sources(args: argparse.Namespace) -> tuple[str, Path | None, Path | None]:
    """The recipe, what is resumed, and its run folder."""
    if args.resume is None:
        if args.config is None:
            raise UserError(
                "No recipe was given.",
                hint="--config FILE, or --resume RUN; `maquette show config` lists some",
            )
        return args.config, None, None
    given = Path(args.resume)
    folder = given.parent.parent if given.is_file() else given
    if not folder.is_dir():
        raise MissingFileError(given, "run to resume", hint="start it with --config F --train")
    OldRun(RunFolder(folder)).settle()
    recipe = RunFolder(folder).recipe
    if args.config is None and not recipe.is_file():
        hint = "give it with --config; a run that was stopped before it had one can be started again"
        raise MissingFileError(recipe, "recipe of the run", hint)
    return args.config or str(recipe), given, folder

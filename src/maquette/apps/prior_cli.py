"""``maquette prior``: train the small diffusion model inside the package, and judge one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from maquette.apps.running import execute, load, run_in_processes
from maquette.core.config import ExperimentConfig
from maquette.core.errors import UserError
from maquette.core.paths import EMBEDDED_PRIOR
from maquette.core.processes import is_leader

ACCEPTS_OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two actions."""
    parser.epilog = "Settings of both recipes can follow as key.path=value, for example preset=smoke."
    actions = parser.add_subparsers(dest="action", metavar="train|report", required=True)
    train = actions.add_parser("train", help="autoencoder, then denoiser, on toyworld (hours on a CPU)")
    train.add_argument("--out", required=True, metavar="DIR", help="DIR/vae and DIR/unet are run folders")
    train.add_argument("--seed", type=int, metavar="N", help="another seed gives another prior")
    train.add_argument("--vae-steps", type=int, metavar="N", help="steps of the autoencoder")
    train.add_argument("--unet-steps", type=int, metavar="N", help="steps of the denoiser")
    train.add_argument("--overwrite", action="store_true", help="replace runs that are in DIR")
    train.add_argument("--verbose", action="store_true", help="show what the libraries say, and tracebacks")
    report = actions.add_parser("report", help="sample pictures and count what is right")
    report.add_argument("--prior", default=EMBEDDED_PRIOR, metavar="P", help="pipeline (%(default)s)")
    report.add_argument("--samples", type=int, default=200, metavar="N", help="pictures (%(default)s)")
    report.add_argument("--seed", type=int, default=0, metavar="S", help="other pictures (%(default)s)")


def main(args: argparse.Namespace) -> int:
    """Do the action."""
    return _train(args) if args.action == "train" else _report(args)


def _train(args: argparse.Namespace) -> int:
    folder = Path(args.out)
    vae = _part("prior-vae", folder / "vae", args, {"trainer.max_steps": args.vae_steps})
    options = {"trainer.max_steps": args.unet_steps, "system.vae": str(folder / "vae" / "vae")}
    unet = _part("prior-unet", folder / "unet", args, options)
    code = run_in_processes(vae[0], args, unet[0])
    if code is not None:
        return code
    from maquette.training.distributed import together

    with together():
        code = _run(*vae) or _run(*unet)
    if code == 0 and is_leader():
        Console(highlight=False, soft_wrap=True).print(f"The pipeline: {folder / 'unet' / 'prior'}")
    return code


def _part(
    recipe: str, folder: Path, args: argparse.Namespace, options: dict[str, Any]
) -> tuple[ExperimentConfig, argparse.Namespace]:
    """The config of one of the two runs, and the arguments with which it would be a command of its own."""
    own = argparse.Namespace(**{**vars(args), "out": str(folder), "extension": [], "recipe": recipe})
    return load(recipe, args.overrides, {**options, "seed": args.seed}, own), own


def _run(cfg: ExperimentConfig, args: argparse.Namespace) -> int:
    return execute(cfg, "train", args, raw=args.recipe)


def _report(args: argparse.Namespace) -> int:
    from maquette.evaluation.prior_report import report_prior

    if args.overrides:
        raise UserError("prior report takes no settings of a recipe.", hint="maquette prior --help")
    report = report_prior(args.prior, samples=args.samples, seed=args.seed)
    table = Table(title=f"{report.samples} pictures of {args.prior}", title_justify="left")
    table.add_column("right")
    table.add_column("share", justify="right")
    for name, value in report.shares().items():
        table.add_row(name, f"{100 * value:.1f} %")
    Console(highlight=False).print(table)
    return 0

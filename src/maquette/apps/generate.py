"""``maquette generate PROMPT``: the friendly face of ``launch --train``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from maquette.apps.running import add_output_arguments, execute, load
from maquette.core.config import ExperimentConfig, load_config
from maquette.core.errors import UserError
from maquette.core.overrides import split_override
from maquette.core.recipes import read_recipe

ACCEPTS_OVERRIDES = True
DEFAULT_RECIPE = "first-light"
MODEL = "pretrained_model_name_or_path"
PARTS = ("prompt_processor", "guidance")
"""Whose model ``--prior`` names."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.epilog = (
        "Leaves mesh.glb, turntable.mp4, preview.png and config.yaml in the run folder.\n"
        "Settings of the recipe can follow as key.path=value; `maquette show config` lists recipes."
    )
    parser.add_argument("prompt", metavar="PROMPT", help="what to make, in quotes")
    parser.add_argument(
        "--recipe", default=DEFAULT_RECIPE, metavar="R", help="recipe name or file (%(default)s)"
    )
    parser.add_argument(
        "--prior", metavar="P", help="diffusion model: folder, hub name, or maquette/toyworld"
    )
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="L[:SCALE]",
        help="adapter: a run of `maquette finetune lora`, a file, or a hub id; may be repeated",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="another seed gives another asset")
    parser.add_argument("--steps", type=positive, metavar="N", help="optimisation steps (of each stage)")
    add_output_arguments(parser)


def positive(text: str) -> int:
    """A whole number above zero."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above zero")
    return int(text)


def adapter(text: str) -> dict[str, Any]:
    """The entry of a recipe for ``PATH`` or ``PATH:SCALE``."""
    path, _, scale = text.rpartition(":")
    try:
        return {"path": path, "scale": float(scale)} if path else {"path": text, "scale": 1.0}
    except ValueError:
        return {"path": text, "scale": 1.0}


def model_of(adapters: Sequence[Mapping[str, Any]]) -> str | None:
    """The model that the first adapter with a run folder was trained on, to be used where none is named."""
    for one in adapters:
        path = Path(one["path"]).expanduser() / "config.yaml"
        if path.is_file():
            name = load_config(path).system.get("pretrained_model_name_or_path")
            return None if name is None else str(name)
    return None


def with_prior(prior: str | None, options: Mapping[str, Any], args: argparse.Namespace) -> ExperimentConfig:
    """The config of the recipe with another model for the prompt.

    If the recipe, or a preset, names the same model for prompt and guidance, both are changed; a model that a
    word names for the guidance stays.
    """
    asked, guiding = (f"system.{part}.{MODEL}" for part in PARTS)
    typed = [split_override(word)[0] for word in args.overrides]
    both = prior is not None and not any(key.endswith(guiding) for key in typed)
    if both and _names_one_model(args.recipe, by_preset="preset" in typed):
        options = {**options, guiding: prior}
    return load(args.recipe, args.overrides, {**options, asked: prior}, args)


def _names_one_model(recipe: str, by_preset: bool) -> bool:
    """Whether prompt and guidance have the same model in the recipe as written, or get it from a preset."""
    written: Any = OmegaConf.to_container(read_recipe(recipe), resolve=False)
    system = written.get("system")
    blocks = [system.get(part) if isinstance(system, Mapping) else None for part in PARTS]
    prompt, guidance = (one.get(MODEL) if isinstance(one, Mapping) else None for one in blocks)
    return guidance is not None and (by_preset or guidance == prompt)


def main(args: argparse.Namespace) -> int:
    """Generate the asset and print where it is."""
    if not args.prompt.strip():
        raise UserError("The prompt is empty.", hint='say what to make: maquette generate "a red mushroom"')
    adapters = [adapter(text) for text in args.lora]
    options = {
        "system.prompt_processor.prompt": args.prompt,
        "system.prompt_processor.lora": adapters or None,
        "system.guidance.lora": adapters or None,
        "seed": args.seed,
        "trainer.max_steps": args.steps,
    }
    cfg = with_prior(args.prior or model_of(adapters), options, args)
    return execute(cfg, "train", args, raw=args.recipe)

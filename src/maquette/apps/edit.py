"""``maquette edit RUN --prompt P``: a finished asset, changed by words, what they do not name left alone."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from maquette.apps.asset_files import say
from maquette.apps.generate import positive
from maquette.apps.running import add_output_arguments, execute, load, run_in_processes
from maquette.core.errors import MissingFileError, UserError
from maquette.core.log import get_logger
from maquette.core.processes import is_leader

ACCEPTS_OVERRIDES = True
STEPS = 60
SHEET = "edit.png"
TAKEN = ("geometry", "material", "background", "renderer", "prompt_processor", "exporter")
"""Parts that an edit has from the recipe of the asset's run."""
MODEL = "system.prompt_processor.pretrained_model_name_or_path"
LOSS = {"lambda_dds": 1.0, "lambda_keep": 300.0}
SHAPE_LOSS = {"lambda_keep_shape": 300.0}
CHANGE = {
    "guidance_type": "edit-guidance",
    "optimizer": {"name": "Adam", "args": {"lr": 0.01, "betas": [0.9, 0.99], "eps": 1e-15}},
}
TRAINING = {
    "trainer": {
        "max_steps": STEPS,
        "log_every_n_steps": 10,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
    },
    "training": {"checkpoint_every": 50},
}
PER_VIEW = ("prompt_front", "prompt_side", "prompt_back", "prompt_overhead")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.epilog = (
        "Words that are the same in both prompts keep their places: the edited views look where the asset's\n"
        "own views look. If only words for colors, materials and patterns change, the shape is kept; other\n"
        "words may change it. Leaves what `generate` leaves, and edit.png: before above after.\n\n"
        "examples:\n"
        '  maquette edit outputs/mushroom --prompt "a blue mushroom" --out blue\n'
        '  maquette edit outputs/mushroom --prompt "a red mushroom on a stone" --free-shape --steps 300'
    )
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, with its checkpoint")
    parser.add_argument("--prompt", required=True, metavar="P", help="what it should become, in quotes")
    text = "what the asset is, if it was not made from words or from other ones"
    parser.add_argument("--source-prompt", metavar="P", help=text)
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--keep-shape", action="store_true", help="change nothing but its looks")
    shape.add_argument("--free-shape", action="store_true", help="let its shape change too")
    parser.add_argument("--prior", metavar="P", help="diffusion model (the one that made the asset)")
    parser.add_argument("--seed", type=int, metavar="N", help="other noise and other views (0)")
    parser.add_argument(
        "--steps", type=positive, default=STEPS, metavar="N", help="optimisation steps (%(default)s)"
    )
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Edit the asset, and print where the new one is."""
    if args.out is not None and Path(args.out).resolve() == Path(args.run).resolve():
        raise UserError("An edit cannot replace the asset that it begins with.", hint="choose another --out")
    run = newest_stage(Path(args.run))
    content, why = recipe(run, args)
    options = {
        "seed": args.seed,
        MODEL: args.prior,
        "trainer.max_steps": args.steps,
    }
    cfg = load(content, args.overrides, options, args)
    code = run_in_processes(cfg, args)
    if code is not None:
        return code
    get_logger(__name__).info(why)
    code = execute(cfg, "train", args, raw=None)
    sheet = write_sheet(Path(args.run) / "mesh.glb", cfg.trial_dir) if is_leader() else None
    if sheet is not None:
        say(f"  {sheet}")
    return code


def newest_stage(run: Path) -> Path:
    """The folder with recipe and checkpoint: the run itself, or the last of its stages that has one.

    Raises:
        MissingFileError: there is no such folder, or nothing was optimised in it.
    """
    if not run.is_dir():
        raise MissingFileError(run, "run folder")
    for folder in (run, *sorted((run / "stages").glob("*"), reverse=True)):
        if (folder / "ckpts" / "last.ckpt").is_file() and (folder / "configs" / "parsed.yaml").is_file():
            return folder
    raise MissingFileError(
        run / "ckpts" / "last.ckpt",
        "checkpoint of the asset",
        hint="give a folder that `generate` or `launch --train` has left",
    )


def recipe(run: Path, args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The recipe of the edit, and in words whether the shape is kept and why.

    Raises:
        UserError: the run was not made from words, or the prompt is the old one.
    """
    from omegaconf import OmegaConf

    from maquette.core.structured import escaped
    from maquette.diffusion.appearance import shape_words

    old: Any = OmegaConf.to_container(OmegaConf.load(run / "configs" / "parsed.yaml"), resolve=True)
    system = old.get("system") or {}
    source = _source_prompt(system, args)
    others = shape_words(source, args.prompt)
    keep = args.keep_shape or not (args.free_shape or others)
    content = {
        "format": "maquette/1",
        "name": "edit",
        "description": f"an edit of {run}",
        "tag": args.prompt,
        "exp_root_dir": old.get("exp_root_dir", "outputs"),
        "data_type": old["data_type"],
        "data": _full_size(old.get("data") or {}),
        "system_type": "edit-system",
        "system": {
            **_parts(system, args.prompt),
            "asset": str((run / "ckpts" / "last.ckpt").resolve()),
            "source_prompt": source,
            "keep_shape": keep,
            "loss": LOSS if keep else LOSS | SHAPE_LOSS,
        },
        "extensions": old.get("extensions") or [],
    }
    content = escaped(content)
    content["system"]["guidance"]["pretrained_model_name_or_path"] = f"${{{MODEL}}}"
    return {**content, **TRAINING, "system": {**content["system"], **CHANGE}}, _why(keep, others, args)


def write_sheet(before: Path, run: Path) -> Path | None:
    """The exported asset before and after, in the same views; None where one of them is missing."""
    after = run / "mesh.glb"
    if not (before.is_file() and after.is_file()):
        return None
    import torch

    from maquette.io.images import write_image
    from maquette.io.lettering import with_text
    from maquette.io.mesh import read_mesh
    from maquette.kernels.render_mesh import orbit_batch, render_mesh
    from maquette.systems.showcase import BACKDROP

    rows = []
    for name, mesh in (("before", read_mesh(before)), ("after", read_mesh(after))):
        batch = orbit_batch(mesh, torch.arange(8) * 45.0, 192, 15.0, fovy_deg=35.0)
        views = list(render_mesh(mesh, batch, shading="albedo", background=BACKDROP)["rgb"])
        rows.append(torch.cat([with_text(views[0], name), *views[1:]], dim=1))
    return write_image(run / SHEET, torch.cat(rows, dim=0))


def _why(keep: bool, others: list[str], args: argparse.Namespace) -> str:
    shape = "the shape is kept" if keep else "the shape may change"
    if args.keep_shape or args.free_shape:
        return f"{shape}, as was asked"
    if keep:
        return f"{shape}: only words for looks change (--free-shape lets it change too)"
    return f"{shape}, because of: {', '.join(others)} (--keep-shape keeps it)"


def _parts(system: Mapping[str, Any], prompt: str) -> dict[str, Any]:
    """The asset's parts, their words exchanged, and the model that made it, in as little memory as then."""
    from maquette.models.guidance.memory_options import MemoryOptions

    keys = [key for name in TAKEN for key in (f"{name}_type", name)]
    parts = {key: system[key] for key in keys if system.get(key) is not None}
    words = {key: value for key, value in system["prompt_processor"].items() if key not in PER_VIEW}
    parts["prompt_processor"] = {**words, "prompt": prompt}
    exporter = system.get("exporter") or {}
    if (exporter.get("extras") or {}).get("prompt"):
        parts["exporter"] = {**exporter, "extras": {**exporter["extras"], "prompt": prompt}}
    same = ("half_precision_weights", "lora", *(one.name for one in fields(MemoryOptions)))
    old = system.get("guidance") or {}
    parts["guidance"] = {key: old[key] for key in same if key in old}
    return parts


def _source_prompt(system: Mapping[str, Any], args: argparse.Namespace) -> str:
    from maquette.models.prompt_processors.prompt_library import resolve_prompt

    processor = system.get("prompt_processor") or {}
    source = args.source_prompt or resolve_prompt(processor.get("prompt") or "")
    if not processor or not source:
        raise UserError(
            f"{args.run} was not made from words.",
            hint="an edit needs a run with a prompt processor; --source-prompt says what the asset is",
        )
    if not args.prompt.strip() or args.prompt.split() == source.split():
        raise UserError(f"There is nothing to edit: the asset is {source!r} already.")
    return str(source)


def _full_size(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data of the asset's last steps, where its pictures grew with the steps."""
    last = {
        key: data[key][-1] for key in ("height", "width", "batch_size") if isinstance(data.get(key), list)
    }
    return {**data, **last} | ({"resolution_milestones": []} if last else {})

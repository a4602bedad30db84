"""``maquette show``: recipes, modules and their options, runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from maquette.apps.field_docs import FieldDoc, field_docs
from maquette.core.errors import UnknownKeyError, UserError
from maquette.core.registry import load_extension

ACCEPTS_OVERRIDES = True
SUBJECTS = ("config", "modules", "option", "run")
EXAMPLE_PROMPT = "system.prompt_processor.prompt=a hamburger"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.epilog = (
        "show config                  the recipes that come along\n"
        "show config RECIPE [k=v ..]  a recipe as it would run (with an example prompt unless you give one)\n"
        "show modules [KIND]          every registered name\n"
        "show modules NAME            what a module can be told\n"
        "show option PATH             what a key of a recipe means, such as system.geometry.radius\n"
        "show run RUN                 what a run did: losses, times, files, versions"
    )
    parser.add_argument("subject", metavar="config|modules|option|run")
    parser.add_argument("name", nargs="?", help="a recipe, a kind, a module or a run folder")
    parser.add_argument(
        "--recipe", default="first-light", metavar="R", help="recipe whose option is shown (%(default)s)"
    )
    parser.add_argument(
        "--extension", action="append", default=[], metavar="PATH", help="load your own modules"
    )


def main(args: argparse.Namespace) -> int:
    """Print what was asked for."""
    if args.subject not in SUBJECTS:
        raise UserError(
            f"There is nothing to show for {args.subject!r}.", hint=f"one of: {', '.join(SUBJECTS)}"
        )
    if args.overrides and args.subject not in ("config", "option"):
        raise UserError(f"show {args.subject} takes no settings of a recipe.", hint="maquette show --help")
    console = Console(highlight=False)
    {"config": _config, "modules": _modules, "option": _option, "run": _run}[args.subject](args, console)
    return 0


def _config(args: argparse.Namespace, console: Console) -> None:
    from maquette.core.config import load_config
    from maquette.core.recipes import recipe_path, shipped_recipes

    if args.name is None:
        console.print(_rows((path.stem, _description(path)) for path in shipped_recipes()))
        return
    for path in args.extension:
        load_extension(path)
    example = [EXAMPLE_PROMPT] if asks_for_a_prompt(recipe_path(args.name)) else []
    sys.stdout.write(load_config(args.name, [*example, *args.overrides]).to_yaml())


def asks_for_a_prompt(path: Path) -> bool:
    """Whether a recipe leaves the prompt to its user."""
    from omegaconf import OmegaConf

    recipe = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    system = recipe.get("system") if isinstance(recipe, dict) else None
    processor = system.get("prompt_processor") if isinstance(system, dict) else None
    return isinstance(processor, dict) and processor.get("prompt") == "???"


def _modules(args: argparse.Namespace, console: Console) -> None:
    from maquette.core.registry import registry

    for path in args.extension:
        load_extension(path)
    kinds = sorted({registry.kind_of(name) for name in registry.names()})
    if args.name is None or args.name in kinds:
        chosen = sorted((registry.kind_of(name), name) for name in registry.names(args.name))
        console.print(_rows(chosen))
        return
    module = registry.find(args.name)
    where = f" ({registry.kind_of(args.name)}, {registry.target_of(args.name)})"
    console.print(Text.assemble((args.name, "bold"), where))
    console.print(Text((module.__doc__ or "").strip().partition("\n")[0] + "\n"))
    for one in field_docs(module):
        _print_option(one.name, one, console)


def _option(args: argparse.Namespace, console: Console) -> None:
    from maquette.apps.option_docs import find_option, modules_with
    from maquette.core.config import load_config
    from maquette.core.recipes import recipe_path

    if args.name is None:
        raise UserError("Which option?", hint="maquette show option system.guidance.guidance_scale")
    for path in args.extension:
        load_extension(path)
    example = [EXAMPLE_PROMPT] if asks_for_a_prompt(recipe_path(args.recipe)) else []
    cfg = load_config(args.recipe, [*example, *args.overrides])
    try:
        option = find_option(args.name, cfg)
    except UnknownKeyError as err:
        others = modules_with(args.name.rpartition(".")[2])
        err.details += [f"modules that have such an option: {', '.join(others)}"] if others else []
        raise
    _print_option(option.path, option.doc, console)
    inner = [(f"  {one.name}", f"{one.default}: {one.doc}") for one in option.inner]
    if inner:
        console.print(_rows(inner))
    said = "not given" if option.value is None else str(option.value)
    console.print(_rows([("read by", option.owner), (f"in {args.recipe}", said)]))


def _print_option(name: str, doc: FieldDoc, console: Console) -> None:
    """Name, type and default, and the text below them."""
    console.print(Text.assemble((name, "bold"), f": {doc.type} = {doc.default}"))
    console.print(Padding(Text(doc.doc or "(no text)"), (0, 0, 0, 4)))


def _run(args: argparse.Namespace, console: Console) -> None:
    from maquette.apps.run_summary import show_run

    if args.name is None:
        raise UserError("Which run?", hint="maquette show run FOLDER")
    show_run(Path(args.name), console)


def _description(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        found = (line.partition(":")[2].strip() for line in lines if line.startswith("description:"))
        return next(found, "")


def _rows(rows: Iterable[Iterable[str]]) -> Table:
    """A table whose last column wraps; the others, which are there to be copied, do not."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for *names, last in rows:
        while len(table.columns) < len(names):
            table.add_column(no_wrap=True)
        table.add_row(*map(Text, names), Text(last, overflow="fold"))  # no markup: "list[int]" is a type
    return table

"""``maquette COMMAND ...``: finds the command, reads its arguments, turns what happens into an exit code."""

from __future__ import annotations

import argparse
import difflib
import importlib
import re
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

import maquette
from maquette.apps.errors import report
from maquette.core.errors import UserError
from maquette.core.log import set_library_verbosity

COMMANDS: dict[str, tuple[str, str]] = {
    "generate": ("maquette.apps.generate", "make a 3D asset from a sentence"),
    "launch": ("maquette.apps.launch", "train, validate, test or export a recipe"),
    "show": ("maquette.apps.show", "list recipes and modules, and what each can be told"),
    "convert": ("maquette.apps.convert", "one 3D file as another: format, axes, units, size, kind"),
    "render": ("maquette.apps.render", "pictures, videos and depth of a 3D file, without a display"),
    "compare": ("maquette.apps.compare", "how far two shapes are apart: chamfer, F-score, volume"),
    "mesh-from-points": ("maquette.apps.mesh_from_points", "a surface through scattered points"),
    "doctor": ("maquette.apps.doctor", "what this machine is, what is installed, what runs how"),
    "attribute": ("maquette.apps.attribute", "which word of the prompt made which part of an asset"),
    "edit": ("maquette.apps.edit", "change a finished asset by words; what they do not name stays"),
    "edit2d": ("maquette.apps.edit2d", "edit a picture by its words (Prompt-to-Prompt), as a sheet"),
    "finetune": ("maquette.apps.finetune", "teach a diffusion model a thing from a few pictures of it"),
    "toyworld": ("maquette.apps.toyworld_cli", "the procedural toys: render them, save them as meshes"),
    "prior": ("maquette.apps.prior_cli", "train and judge the small diffusion model inside the package"),
}
"""Command -> the module that is imported for it, and one line of help."""

OVERRIDE = re.compile(r"^[A-Za-z_][\w.\-/]*=")

EXAMPLES = """\
examples:
  maquette generate "a red mushroom"                     mesh, video and preview, in under two minutes, no GPU
  maquette generate "a blue chair" --seed 3 --out chair  the same again, in a folder of your choice
  maquette generate "a red mushroom" trainer.max_steps=800 data.width=96 data.height=96
  maquette launch --config my_recipe.yaml --train        your own recipe
  maquette launch --resume outputs/NAME/RUN --export     files again, from a finished run
  maquette convert mesh.glb print.stl --repair --units mm  a file for a slicer
  maquette show modules implicit-volume                  every option of a module

Any `key.path=value` after a command changes the recipe. `maquette COMMAND --help` tells more.
MAQUETTE_CACHE moves the cache, HF_HOME the models of the hub; docs/environment.md lists all variables."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 done, 1 failed, 2 a mistake in what was asked, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verbose = "--verbose" in arguments
    set_library_verbosity(verbose)
    return report(lambda: _dispatch(arguments), verbose)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(_help())
        return 0
    if arguments[0] == "--version":
        sys.stdout.write(f"maquette {maquette.__version__}\n")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise UserError(
            f"There is no command {name!r}.", hint=_near(name, list(COMMANDS)) or "maquette --help"
        )
    module = importlib.import_module(COMMANDS[name][0])
    parser = _Parser(prog=f"maquette {name}", description=COMMANDS[name][1])
    module.add_arguments(parser)
    result: int = module.main(_parse(parser, rest, module))
    return result


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would exit, so that every error looks the same."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """A UserError with the usage."""
        raise UserError(message[:1].upper() + message[1:] + ".", hint=f"{self.prog} --help")


def _parse(parser: _Parser, rest: list[str], module: ModuleType) -> argparse.Namespace:
    """The arguments; what argparse does not know must be overrides, and only where the command takes them."""
    if getattr(module, "ACCEPTS_OVERRIDES", False):
        args, extras = parser.parse_known_args(rest)
        args.overrides = [extra for extra in extras if OVERRIDE.match(extra)]
        unknown = [extra for extra in extras if not OVERRIDE.match(extra)]
    else:
        args, unknown = parser.parse_known_args(rest)
    if unknown:
        raise _unknown_argument(parser, unknown[0])
    return args


def _unknown_argument(parser: argparse.ArgumentParser, extra: str) -> UserError:
    known = [option for action in parser._actions for option in action.option_strings]
    flag = extra.partition("=")[0]
    if extra.startswith("-"):
        hint = _near(flag, known)
        if not hint and "." in flag:
            hint = f"settings of the recipe have no dashes: {extra.lstrip('-')}"
        return UserError(f"Unknown option {flag}.", hint=hint or f"{parser.prog} --help")
    return UserError(
        f"Unexpected argument {extra!r}.",
        hint="a prompt of several words needs quotes; settings are key.path=value",
    )


def _near(name: str, known: list[str]) -> str | None:
    near = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else None


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {line}" for name, (_, line) in COMMANDS.items()]
    commands = "\n".join(lines)
    return (
        "usage: maquette COMMAND [options] [key.path=value ...]\n\n"
        "Text or images in, 3D asset out, on any machine.\n\n"
        f"commands:\n{commands}\n\n{EXAMPLES}\n"
    )


if __name__ == "__main__":
    sys.exit(main())

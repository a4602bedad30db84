"""``maquette COMMAND ...``: finds the command, reads its arguments, turns what happens into an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import maquette
from maquette.apps.commands import COMMANDS, command
from maquette.apps.errors import report
from maquette.apps.parser import HELP, near
from maquette.core.errors import UserError
from maquette.core.log import set_library_verbosity

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
Defaults of your own: ~/.config/maquette/defaults.ini, or MAQUETTE_SEED and so on (docs/defaults.md).
MAQUETTE_CACHE moves the cache, HF_HOME the models of the hub; docs/environment.md lists all variables."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 done, 1 failed, 2 a mistake in what was asked, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    asked = argparse.Namespace(verbose="--verbose" in arguments)
    set_library_verbosity(asked.verbose)
    return report(lambda: _dispatch(arguments, asked), lambda: asked.verbose)


def _dispatch(arguments: list[str], asked: argparse.Namespace) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(_help())
        return 0
    if arguments[0] == "--version":
        sys.stdout.write(f"maquette {maquette.__version__}\n")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise UserError(
            f"There is no command {name!r}.", hint=near(name, list(COMMANDS)) or "maquette --help"
        )
    module, parser = command(name)
    if any(word in HELP for word in rest):
        sys.stdout.write(parser.help(rest))
        return 0
    args = parser.parse(rest, getattr(module, "ACCEPTS_OVERRIDES", False))
    args.words = arguments
    asked.verbose = getattr(args, "verbose", asked.verbose)  # it may come from the user's defaults
    set_library_verbosity(asked.verbose)
    result: int = module.main(args)
    return result


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

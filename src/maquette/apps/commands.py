"""The commands, and the parser of each."""

from __future__ import annotations

import importlib
from types import ModuleType

from maquette.apps.parser import CommandParser

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
    "new": ("maquette.apps.new", "begin a package of your own modules, which works as it is"),
    "toyworld": ("maquette.apps.toyworld_cli", "the procedural toys: render them, save them as meshes"),
    "prior": ("maquette.apps.prior_cli", "train and judge the small diffusion model inside the package"),
}
"""Command -> the module that is imported for it, and one line of help."""


def command(name: str) -> tuple[ModuleType, CommandParser]:
    """The module of a command with `main`, and its parser with every option."""
    target, line = COMMANDS[name]
    module = importlib.import_module(target)
    parser = CommandParser(name, line, others, COMMANDS)
    module.add_arguments(parser)
    return module, parser


def others() -> set[str]:
    """What a file of defaults may hold: the options of all commands, without their dashes."""
    parsers = (command(name)[1] for name in COMMANDS)
    return {key for parser in parsers for key in parser.keys()}

"""``maquette new extension NAME``: a package of one's own modules, which works as it is."""

from __future__ import annotations

import argparse
import keyword
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from string import Template

from rich.console import Console

from maquette.core.errors import UserError
from maquette.core.paths import assets_dir, configs_dir, unfinished_name
from maquette.core.registry import registry

RECIPE = "first-light"
"""The recipe that the new one is made from."""

SUFFIX = ".in"
"""How the names of the templates end."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.epilog = (
        "Writes a folder NAME with a package: a guidance with an option of its own, a recipe that uses it,\n"
        "a test. `maquette generate ... --extension NAME/PACKAGE` uses it at once; `pip install -e NAME`\n"
        "makes it known for good."
    )
    parser.add_argument("what", choices=["extension"], help="what to begin")
    parser.add_argument("name", metavar="NAME", help="lower-case words joined by -, such as my-guidance")
    parser.add_argument("--out", metavar="DIR", default=".", help="where the folder is made (%(default)s)")


def main(args: argparse.Namespace) -> int:
    """Write the package and tell how to use it."""
    names = names_for(args.name)
    folder = Path(args.out).expanduser() / args.name
    if folder.exists():
        raise UserError(f"There is something at {folder} already.", hint="choose another name, or --out DIR")
    write_extension(folder, names)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{folder}[/]")
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        console.print(f"  {path.relative_to(folder)}", markup=False)
    package = folder / names["package"]
    recipe = package / "recipe.yaml"
    console.print("Try it:")
    console.print(
        f'  maquette generate "a red mushroom" --recipe {recipe} --extension {package}', markup=False
    )
    console.print(f"  cd {folder} && python -m pytest tests", markup=False)
    return 0


def names_for(name: str) -> dict[str, str]:
    """What the templates call things, for the extension ``name``.

    Raises:
        UserError: it is no name of a package, or its guidance would have a name that is taken.
    """
    package = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(package):
        raise UserError(
            f"{name!r} cannot be the name of an extension.",
            hint="lower-case words joined by -, as in my-idea",
        )
    stem = name.removesuffix("-guidance")
    registered = f"{stem}-guidance"
    if registered in registry.names() or package == "maquette":
        raise UserError(f"The name {registered!r} is taken.", hint="choose another one")
    class_name = "".join(word.capitalize() for word in stem.split("-")) + "Guidance"
    return {"name": name, "package": package, "registered": registered, "class_name": class_name}


def write_extension(folder: Path, names: dict[str, str]) -> None:
    """Make the folder, whole or not at all.

    Raises:
        UserError: the system refused.
    """
    unfinished = folder.with_name(unfinished_name(folder))
    try:
        for path, text in files(names):
            target = unfinished / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        unfinished.rename(folder)
    except OSError as err:
        raise UserError(f"The extension cannot be written: {folder}", [str(err)]) from err
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def files(names: dict[str, str]) -> Iterator[tuple[Path, str]]:
    """Path inside of the folder, and content, of every file."""
    templates = assets_dir("extension")
    for path in sorted(templates.rglob(f"*{SUFFIX}")):
        inside = Path(str(path.relative_to(templates)).removesuffix(SUFFIX))
        parts = [names["package"] if part == "package" else part for part in inside.parts]
        yield Path(*parts), Template(path.read_text(encoding="utf-8")).substitute(names)
    yield Path(names["package"], "recipe.yaml"), recipe(names)


def recipe(names: dict[str, str]) -> str:
    """The recipe of the package: the shipped one, with the guidance of the package."""
    text = configs_dir(f"{RECIPE}.yaml").read_text(encoding="utf-8")
    changes = {
        r"^name: .*$": f"name: {names['name']}",
        r"^description: .*$": f"description: text to 3D with {names['registered']}",
        r"^  guidance_type: .*\n  guidance:$": (
            f"  guidance_type: {names['registered']}\n  guidance:\n    strength: 0.5"
        ),
    }
    for pattern, replacement in changes.items():
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        assert count == 1, pattern
    return text

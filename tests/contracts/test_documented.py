"""What the code asks of its surroundings is written down where a person looks for it."""

import ast
import re
import tomllib
from pathlib import Path

import maquette
from maquette.apps.doctor import OPTIONAL

PACKAGE = Path(maquette.__file__).parent
ROOT = PACKAGE.parents[1]
VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")


def constants(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [value for value in found if isinstance(value, str)]


def required_extras(path: Path) -> list[str]:
    """The second argument of each call `require(package, extra)`."""
    return [
        ast.literal_eval(node.args[1])
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "require"
    ]


def test_every_environment_variable_is_in_the_table():
    used = {
        name
        for path in PACKAGE.rglob("*.py")
        if "os.environ" in path.read_text()
        for name in constants(path)
        if VARIABLE.fullmatch(name)
    }
    assert {"MAQUETTE_CACHE", "WARP_CACHE_PATH", "CUDA_VISIBLE_DEVICES"} <= used
    page = (ROOT / "docs" / "environment.md").read_text()
    assert [name for name in sorted(used) if f"`{name}`" not in page] == []


def test_every_extra_that_a_message_names_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {extra for path in PACKAGE.rglob("*.py") for extra in required_extras(path)}
    assert named | {extra for extra, _ in OPTIONAL.values()} <= set(extras)

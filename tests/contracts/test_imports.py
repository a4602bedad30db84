"""Imports go one way: the table of the rooms against every import statement of the package."""

import ast
import fnmatch
import importlib.util
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import maquette

PACKAGE = Path(maquette.__file__).parent
TABLE = tomllib.loads((Path(__file__).parent / "import_table.toml").read_text())
EVERYWHERE = {"jaxtyping"}


@dataclass(frozen=True)
class Import:
    """One imported name."""

    source: str
    """Importing module, for example "maquette.core.config"."""
    target: str
    """Imported module, or name in a module."""
    late: bool
    """Whether it stands in a function."""
    line: int
    """Where."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a file, also in functions and below TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    source = module_name(path)
    inside = {id(node) for scope in ast.walk(tree) if _is_function(scope) for node in ast.walk(scope)}
    for node in ast.walk(tree):
        late = id(node) in inside
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(source, alias.name, late, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}:{node.lineno} has a relative import"
            assert node.names[0].name != "*", f"{source}:{node.lineno} imports *"
            for alias in node.names:
                yield Import(source, _resolved(str(node.module), alias.name), late, node.lineno)


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _resolved(module: str, name: str) -> str:
    """`module.name` when that is a module of ours, else `module`."""
    path = PACKAGE.parent.joinpath(*module.split("."), name)
    is_module = path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
    return f"{module}.{name}" if module.startswith("maquette") and is_module else module


def room_of(module: str) -> str:
    """The longest row of the table that covers a module: "models.guidance"; empty for the package itself."""
    parts = module.split(".")[1:]
    rows = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((row for row in rows if row in TABLE), "")


def covers(pattern: str, module: str) -> bool:
    """Whether a row entry such as "ops", "models.*.base" or "*" covers a module of ours."""
    name = module.removeprefix("maquette").removeprefix(".")
    depth = len(pattern.split("."))
    return fnmatch.fnmatchcase(".".join(name.split(".")[:depth]), pattern)


def all_imports() -> list[Import]:
    return [one for path in sorted(PACKAGE.rglob("*.py")) for one in imports_of(path)]


IMPORTS = all_imports()


def is_ours(target: str) -> bool:
    return target.split(".", maxsplit=1)[0] == "maquette"


def test_every_module_stands_in_a_room_of_the_table():
    modules = {module_name(path) for path in PACKAGE.rglob("*.py")} - {"maquette"}
    assert [module for module in sorted(modules) if not room_of(module)] == []


def test_imports_between_rooms_follow_the_table():
    wrong = []
    for one in (one for one in IMPORTS if is_ours(one.target) and one.source != "maquette"):
        room = room_of(one.source)
        allowed = [room, *TABLE[room]["rooms"]]
        if one.target != "maquette" and not any(covers(pattern, one.target) for pattern in allowed):
            wrong.append(str(one))
    assert wrong == []


def test_third_party_packages_follow_the_table():
    wrong = []
    for one in IMPORTS:
        top = one.target.split(".")[0]
        if is_ours(one.target) or top in sys.stdlib_module_names or top in EVERYWHERE:
            continue
        row = TABLE.get(room_of(one.source), {"packages": []})
        if top not in row["packages"] and not (one.late and top in row.get("late", [])):
            wrong.append(str(one))
    assert wrong == []


def test_the_package_itself_imports_only_the_registry():
    assert {one.target for one in IMPORTS if one.source == "maquette"} == {"maquette.core.registry"}


def test_no_import_cycle():
    graph: dict[str, set[str]] = {}
    for one in IMPORTS:
        if is_ours(one.target) and one.target != one.source:
            graph.setdefault(one.source, set()).add(one.target)
    assert find_cycle(graph) == []


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    done: set[str] = set()

    def visit(node: str, path: tuple[str, ...]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for target in sorted(graph.get(node, ())):
            cycle = visit(target, (*path, node))
            if cycle:
                return cycle
        done.add(node)
        return []

    return next((cycle for node in sorted(graph) if (cycle := visit(node, ()))), [])


def test_a_cycle_would_be_found():
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_the_table_names_only_rooms_and_packages_that_exist():
    rooms = {pattern.split(".")[0] for row in TABLE.values() for pattern in row["rooms"]}
    assert rooms <= {*TABLE, "*"}
    packages = {package for row in TABLE.values() for package in row["packages"]}
    assert [package for package in sorted(packages) if importlib.util.find_spec(package) is None] == []

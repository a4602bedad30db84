"""Rules of the house that one can see in the text of the sources."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import maquette

PACKAGE = Path(maquette.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400
MAX_FUNCTION_LINES = 90
DEVICE = PACKAGE / "core" / "device.py"


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in SOURCES}


def named(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}"


def test_nothing_prints(trees):
    found = [
        named(path, node)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert found == []


WATCHMAN = PACKAGE / "training" / "distributed.py"
"""Ends a process that waits for a dead one inside of a library, which nothing raised in it would reach."""


def test_nothing_below_the_commands_exits(trees):
    found = [
        named(path, node)
        for path, tree in trees.items()
        if path.relative_to(PACKAGE).parts[0] != "apps" and path != WATCHMAN
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("sys.exit", "exit", "quit", "os._exit")
    ]
    assert found == []


def test_the_accelerator_is_named_in_one_file(trees):
    found = [
        named(path, node)
        for path, tree in trees.items()
        if path != DEVICE
        for node, text in words_of_code(tree)
        if "cuda" in text.replace("CUDA_VISIBLE_DEVICES", "").lower()
    ]
    assert found == []


def words_of_code(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Names and strings of a file, without docstrings."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node, node.value
        elif isinstance(node, ast.Name):
            yield node, node.id
        elif isinstance(node, ast.Attribute):
            yield node, node.attr


def test_no_bare_or_silent_except(trees):
    found = [
        named(path, node)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        if node.type is None or (ast.unparse(node.type) in ("Exception", "BaseException") and is_silent(node))
    ]
    assert found == []


def is_silent(handler: ast.ExceptHandler) -> bool:
    return all(isinstance(one, ast.Pass | ast.Continue) for one in handler.body)


def test_files_and_functions_stay_small(trees):
    long_files = [str(path.relative_to(PACKAGE)) for path in SOURCES if line_count(path) > MAX_LINES]
    long_functions = [
        named(path, node)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert (long_files, long_functions) == ([], [])


def line_count(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_no_open_ends():
    pattern = re.compile(r"\b(TODO|FIXME|XXX)\b")
    assert [str(path.relative_to(PACKAGE)) for path in SOURCES if pattern.search(path.read_text())] == []


def test_modules_with_a_config_keep_real_annotations(trees):
    """OmegaConf reads the types of a Config; the future import would leave it strings."""
    found = [
        str(path.relative_to(PACKAGE))
        for path, tree in trees.items()
        if any(isinstance(node, ast.ClassDef) and node.name == "Config" for node in ast.walk(tree))
        if any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    ]
    assert found == []

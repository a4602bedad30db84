"""The options of a module, with the text that stands below each in its source."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class FieldDoc:
    """One option."""

    name: str
    """Key in the recipe."""
    type: str
    """Type as it is written in the source."""
    default: str
    """Value if nothing is given."""
    doc: str
    """What it means."""


def field_docs(module: type) -> list[FieldDoc]:
    """Every field of the module's ``Config``, inherited ones first."""
    config = getattr(module, "Config", None)
    return config_docs(config) if config is not None and dataclasses.is_dataclass(config) else []


def config_docs(config: type) -> list[FieldDoc]:
    """Every field of a dataclass, inherited ones first."""
    docs: dict[str, str] = {}
    for base in reversed(config.__mro__[:-1]):
        docs |= _docs_in_source(base)
    return [
        FieldDoc(one.name, type_text(one.type), _default(one), docs.get(one.name, ""))
        for one in dataclasses.fields(config)
    ]


def _docs_in_source(config: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(config)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body = tree.body[0].body if tree.body and isinstance(tree.body[0], ast.ClassDef) else []
    return {
        field.target.id: " ".join(inspect.cleandoc(text.value.value).split())
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def type_text(annotation: object) -> str:
    """A type as it is written in the source."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return text.replace("typing.", "")


def _default(one: dataclasses.Field[object]) -> str:
    if one.default is not dataclasses.MISSING:
        return repr(one.default)
    return repr(one.default_factory()) if one.default_factory is not dataclasses.MISSING else "(required)"

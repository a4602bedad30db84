"""The options of a module, with the text that stands below each in its source."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
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
        FieldDoc(one.name, type_text(one.type), _default(one), plain_text(docs.get(one.name, "")))
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


def nested_docs(config: type, name: str) -> list[FieldDoc]:
    """Every option of the dataclass that a field holds; none where it holds none."""
    inside = dataclass_of(config, name)
    return [] if inside is None else config_docs(inside)


def dataclass_of(config: type, name: str) -> type | None:
    """The dataclass that a field holds, if it does."""
    kind = next((one.type for one in dataclasses.fields(config) if one.name == name), None)
    return kind if isinstance(kind, type) and dataclasses.is_dataclass(kind) else None


def plain_text(text: str) -> str:
    """Documentation as it is read on a screen: without the marks of code, and of references."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"\1", text)
    return re.sub(r"``?([^`]*)``?", r"\1", text)


def type_text(annotation: object) -> str:
    """A type as it is written in the source; a mapping where that is a dataclass of ours."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return "mapping"
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return text.replace("typing.", "")


def _default(one: dataclasses.Field[object]) -> str:
    if one.default is not dataclasses.MISSING:
        return repr(one.default)
    if one.default_factory is dataclasses.MISSING:
        return "(required)"
    default = one.default_factory()
    is_ours = dataclasses.is_dataclass(default) and not isinstance(default, type)
    return repr(dataclasses.asdict(default) if is_ours else default)

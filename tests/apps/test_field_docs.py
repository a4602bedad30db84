from dataclasses import dataclass, field
from typing import Any

import pytest
from rich.console import Console

from maquette.apps.field_docs import FieldDoc, field_docs, plain_text
from maquette.apps.show import _rows


class Base:
    @dataclass(kw_only=True)
    class Config:
        weights: str | None = None
        """Take the weights
        of another."""


class Part(Base):
    @dataclass(kw_only=True)
    class Config(Base.Config):
        sizes: list[int] = field(default_factory=lambda: [1, 2])
        """A list [s0, v0, v1] of numbers."""
        options: dict[str, Any] | None = None
        bare: float


def test_inherited_fields_come_first_with_types_defaults_and_texts() -> None:
    assert field_docs(Part) == [
        FieldDoc("weights", "str | None", "None", "Take the weights of another."),
        FieldDoc("sizes", "list[int]", "[1, 2]", "A list [s0, v0, v1] of numbers."),
        FieldDoc("options", "dict[str, Any] | None", "None", ""),
        FieldDoc("bare", "float", "(required)", ""),
    ]


def test_class_without_a_config_has_no_options() -> None:
    assert field_docs(object) == []


def test_brackets_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=120).print(_rows([("sizes", "list[int]", "A list [s0, v0, v1] of numbers.")]))
    shown = capsys.readouterr().out
    assert "list[int]" in shown and "[s0, v0, v1]" in shown


def test_marks_of_code_are_taken_away() -> None:
    text = "Rules ``{a, b}``, or `c`; see :class:`~maquette.a.B`."
    assert plain_text(text) == "Rules {a, b}, or c; see maquette.a.B."

"""The table of what is about to be trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from maquette.training.overview import Overview


def overview_table(overview: Overview) -> Group:
    """Modules, parameter groups, and a line each for settings and memory."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("module", "", "parameters", "trained"):
        table.add_column(name, justify="right" if name in ("parameters", "trained") else "left")
    for one in overview.modules:
        table.add_row(one.name, one.kind, f"{one.total:,}", f"{one.trainable:,}")
    table.add_section()
    table.add_row("group", "weight decay", "parameters", "rate", style="bold")
    for group in overview.groups:
        table.add_row(group.name, f"{group.weight_decay:g}", f"{group.parameters:,}", f"{group.rate:g}")
    facts = "  ".join(f"{name} {value}" for name, value in overview.facts.items())
    return Group(table, Text(facts), Text(overview.memory_line(), style="dim"))

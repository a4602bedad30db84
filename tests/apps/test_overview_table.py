import io

from rich.console import Console

from maquette.apps.progress_bar import ProgressBar
from maquette.core.progress import ProgressEvent
from maquette.training.overview import GroupRow, ModuleRow, Overview


def test_table_is_shown_once_and_is_no_phase() -> None:
    screen = io.StringIO()
    overview = Overview(
        modules=[ModuleRow("geometry", "Grid", 12_600_000, 1200)],
        groups=[GroupRow("geometry", 1200, 0.01, 0.1)],
        facts={"device": "cpu", "precision": "32-true"},
        memory={"weights": 48.0, "total": 48.0, "in use so far": 300.0},
    )
    with ProgressBar(Console(file=screen, width=100)) as bar:
        bar(ProgressEvent(0, 10, 0.0, None, "loading", overview=overview))
    lines = [line.split() for line in screen.getvalue().splitlines()]
    assert lines == [
        ["module", "parameters", "trained"],
        ["geometry", "Grid", "12,600,000", "1,200"],
        ["group", "weight", "decay", "parameters", "rate"],
        ["geometry", "0.1", "1,200", "0.01"],
        ["device", "cpu", "precision", "32-true"],
        "memory: weights 48.0 = 48.0 MiB, and what a step needs; 300 MiB are in use".split(),
    ]

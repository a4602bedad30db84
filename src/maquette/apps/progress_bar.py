"""What the screen shows while a run goes on."""

from __future__ import annotations

import logging
from types import TracebackType

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from maquette.apps.overview_table import overview_table
from maquette.core.progress import ProgressEvent


class ProgressBar:
    """A progress listener; use it as a context manager around the run.

    On a terminal it is one moving line; elsewhere each phase is announced once.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._phase = ""
        self._bar = Progress(
            TextColumn("[bold]{task.description:<10}"),
            BarColumn(bar_width=32),
            _Steps(),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, rate=0.0, eta=None)

    def __enter__(self) -> ProgressBar:
        """Start drawing."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._bar.stop()

    def __call__(self, event: ProgressEvent) -> None:
        """Show an event."""
        if event.overview is not None:
            self.console.print(overview_table(event.overview))
            return
        if event.phase != self._phase:
            self._begin(event.phase)
        self._bar.update(
            self._task, completed=event.step, total=event.total or None, rate=event.rate, eta=event.eta
        )

    def log_handler(self) -> logging.Handler:
        """A handler that writes messages above the moving line."""
        return RichHandler(console=self.console, show_time=False, show_path=False, show_level=True)

    def _begin(self, phase: str) -> None:
        self._phase = phase
        if not self.console.is_terminal:
            self.console.print(phase, highlight=False)
        self._bar.reset(self._task, description=phase, total=None, rate=0.0, eta=None)


class _Steps(ProgressColumn):
    """Shows ``120/400  9.8 it/s  0:28 left``."""

    def render(self, task: Task) -> Text:
        """The text for one task."""
        if not task.total:
            return Text("")
        text = f"{int(task.completed)}/{int(task.total)}"
        if task.fields.get("rate"):
            text += f"  {task.fields['rate']:.1f} it/s"
        if task.fields.get("eta") is not None:
            minutes, seconds = divmod(int(task.fields["eta"]), 60)
            text += f"  {minutes}:{seconds:02d} left"
        return Text(text, style="cyan")

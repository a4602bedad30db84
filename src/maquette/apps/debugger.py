"""``--debug``: the debugger at the place where a run broke."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import TracebackType

POST_MORTEM = ("ipdb", "pdb")
"""Debuggers, the better one first; both read ``.pdbrc`` of the home and the working folder."""


@contextmanager
def debugger(wanted: bool) -> Iterator[None]:
    """Open a debugger on what is raised inside the block, then let it go on; Ctrl-C is no error."""
    try:
        yield
    except Exception as err:
        if wanted:
            sys.stderr.write(f"{type(err).__name__}: {err}\nq leaves the debugger, w shows where you are\n")
            name = next(name for name in POST_MORTEM if find_spec(name) is not None)
            importlib.import_module(name).post_mortem(innermost(err))
        raise


def innermost(error: BaseException) -> TracebackType | None:
    """The traceback of what an error was made from, where it was made from another."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error.__traceback__

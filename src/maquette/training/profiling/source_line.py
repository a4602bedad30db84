"""The line of a program that is behind what a library does."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import maquette

PACKAGE = str(Path(maquette.__file__).parent)
LIBRARIES = ("site-packages", "dist-packages", "<frozen", "<string>", "lib/python")
ENGINE = "/lightning/"
"""Where the search ends: lines of ours further out only started the run."""
MACHINERY = ("/torch/utils/", "/torch/_", "/torch/overrides", "/jaxtyping/", "/beartype/")
OWN_TOOLS = str(Path(__file__).parent)


def calling_line() -> str:
    """The innermost line of the present call that is ours or the user's, as ``path:line in function``.

    If the Trainer is reached first, the line of the library that called, such as an optimizer.
    """
    frame: FrameType | None = sys._getframe(1)
    library = None
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(OWN_TOOLS):
            if not any(mark in name for mark in LIBRARIES):
                return _shown(frame, name.replace(f"{PACKAGE}/", "maquette/"))
            if library is None and "-packages" in name and not any(mark in name for mark in MACHINERY):
                library = _shown(frame, name.rpartition("site-packages/")[2])
            if library is not None and ENGINE in name:
                break
        frame = frame.f_back
    return library or "?"


def _shown(frame: FrameType, name: str) -> str:
    return f"{name}:{frame.f_lineno} in {frame.f_code.co_name}"

"""The line of a program that is behind what a library does."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import maquette

PACKAGE = str(Path(maquette.__file__).parent)
LIBRARIES = ("site-packages", "dist-packages", "<frozen", "<string>", "torch/", "lib/python")
OWN_TOOLS = str(Path(__file__).parent)


def calling_line() -> str:
    """The innermost line of the present call that is ours or the user's, as ``path:line in function``.

    Where there is none, it is a library's: the innermost that is no part of torch.
    """
    frame: FrameType | None = sys._getframe(1)
    library = "?"
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(OWN_TOOLS):
            if not any(mark in name for mark in LIBRARIES):
                return _shown(frame, name.replace(f"{PACKAGE}/", "maquette/"))
            if library == "?" and "/torch/" not in name:
                library = _shown(frame, name.rpartition("site-packages/")[2])
        frame = frame.f_back
    return library


def _shown(frame: FrameType, name: str) -> str:
    return f"{name}:{frame.f_lineno} in {frame.f_code.co_name}"

"""The captions of a folder of pictures: beside them, in one table, or one prompt for all with view words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maquette.core.errors import UserError
from maquette.core.view_words import AZIMUTH_WORDS, ELEVATION_WORDS, view_caption

TABLE = "metadata.jsonl"
"""A line for each picture: {"file_name", and "text", or "azimuth" and "elevation" in degrees}."""

SIDES = ("front", "back", "left", "right", "side")


def captions_of(paths: Sequence[Path], prompt: str, view_words: bool = False) -> list[str]:
    """The caption of each picture: `NAME.txt` beside it, its line of `metadata.jsonl`, or the prompt.

    In a text of one's own `{}` stands for the prompt. A camera in the table adds the view words that the
    embedded prior was trained with; `view_words` reads such words from the names of files.

    Raises:
        UserError: the table or a text cannot be read.
    """
    tables = {folder: _table(folder / TABLE) for folder in {path.parent for path in paths}}
    return [_caption(path, prompt, tables[path.parent].get(path.name, {}), view_words) for path in paths]


def view_of_name(stem: str) -> str:
    """The view that words of a file's name tell: "03_front-left_high" is "front left view, high"; or ""."""
    words = re.findall(r"[a-z]+", stem.lower())
    sides = [word for word in SIDES if word in words]
    side = " ".join(sides)
    elevation = next((word for word in ELEVATION_WORDS if word in words), "")
    if not sides:
        return f"{elevation} view" if elevation else ""
    if side not in (*AZIMUTH_WORDS, *SIDES):
        return ""
    return f"{side} view, {elevation}" if elevation else f"{side} view"


def _caption(path: Path, prompt: str, entry: Mapping[str, Any], view_words: bool) -> str:
    text = path.with_suffix(".txt")
    if text.is_file():
        return _read(text).strip().replace("{}", prompt)
    if "text" in entry:
        return str(entry["text"]).replace("{}", prompt)
    if "azimuth" in entry and "elevation" in entry:
        return view_caption(prompt, float(entry["azimuth"]), float(entry["elevation"]))
    view = view_of_name(path.stem) if view_words else ""
    return f"{prompt}, {view}" if view else prompt


def _table(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    rows = {}
    for number, line in enumerate(_read(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows[str(row["file_name"])] = row
        except (ValueError, KeyError, TypeError) as err:
            raise UserError(
                f"Line {number} of {path} is no line of a table of pictures.",
                [line[:100]],
                'write {"file_name": "a.png", "text": "a mug"}',
            ) from err
    return rows


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise UserError(f"{path} cannot be read as text.", [str(err)]) from err

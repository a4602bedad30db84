"""Toyworld as a folder of pictures: PNG files and one line of labels for each."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import UnknownNameError
from maquette.core.view_words import azimuth_word, elevation_word, view_caption
from maquette.data.toyworld.captions import caption
from maquette.data.toyworld.held_out import HELD_OUT
from maquette.data.toyworld.kinds import KINDS
from maquette.data.toyworld.palette import PALETTE
from maquette.data.toyworld.render import Views, render, sample_views
from maquette.io.images import write_png

LABELS = "captions.jsonl"
CAMERAS = "metadata.jsonl"
TOY_VIEWS = 8
"""Pictures of one toy unless asked otherwise."""


def write_album(folder: Path, count: int, seed: int, size: int = 64) -> Path:
    """Render ``count`` random views of random toys; picture i depends on ``seed`` and i only.

    Returns:
        The file of labels: a JSON object a line with ``file``, ``caption``, ``kind``, ``color``, ``azimuth``,
        ``elevation`` and ``fovy`` in degrees, ``distance`` in world units.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [_write_picture(folder, index, seed, size) for index in range(count)]
    path = folder / LABELS
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def write_toy(
    folder: Path, kind: str, color: str, count: int = TOY_VIEWS, seed: int = 0, size: int = 64
) -> Path:
    """Render one toy from all around, as a person would take pictures of it.

    Returns:
        The file of cameras: a JSON object a line with ``file_name``, and ``azimuth`` and ``elevation`` in
        degrees.

    Raises:
        UnknownNameError: there is no such toy.
    """
    views = around(count, seed)
    pictures = render(*_known(kind, color), views, size)
    lines = []
    for index, picture in enumerate(pictures):
        azimuth, elevation = float(views.azimuth_deg[index]), float(views.elevation_deg[index])
        side = azimuth_word(azimuth).replace(" ", "-")
        name = f"{index:03d}_{side}_{elevation_word(elevation)}.png"
        write_png(folder / name, picture.permute(1, 2, 0))
        lines.append({"file_name": name, "azimuth": round(azimuth, 2), "elevation": round(elevation, 2)})
    path = folder / CAMERAS
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def toy_pictures(
    kind: str, color: str, thing: str, count: int = TOY_VIEWS, seed: int = 0, size: int = 64
) -> tuple[Float[Tensor, "N 3 size size"], list[str]]:
    """The pictures of `write_toy`, in [0, 1], and captions of `thing` in the words of their views.

    Raises:
        UnknownNameError: there is no such toy.
    """
    views = around(count, seed)
    angles = zip(views.azimuth_deg.tolist(), views.elevation_deg.tolist(), strict=True)
    captions = [view_caption(thing, azimuth, elevation) for azimuth, elevation in angles]
    return render(*_known(kind, color), views, size).float() / 255.0, captions


def around(count: int, seed: int) -> Views:
    """Random views in sectors of equal width all around, the elevation going up and down."""
    views = sample_views(count, np.random.default_rng((seed, count)))
    azimuth = np.arange(count) * 360.0 / count + np.random.default_rng((seed, 1)).uniform(-10, 10, count)
    views.azimuth_deg[:] = (azimuth + 180.0) % 360.0 - 180.0
    views.elevation_deg[:] = np.resize([20.0, 45.0, 10.0, 30.0], count)
    return views


def _known(kind: str, color: str) -> tuple[str, str]:
    for what, given, names in (("kind of toy", kind, {**KINDS, **HELD_OUT}), ("colour", color, PALETTE)):
        if given not in names:
            known = list(names)
            raise UnknownNameError(what, given, difflib.get_close_matches(given, known, n=3), known)
    return kind, color


def _write_picture(folder: Path, index: int, seed: int, size: int) -> dict[str, Any]:
    rng = np.random.default_rng((seed, index))
    kind, color = str(rng.choice(list(KINDS))), str(rng.choice(list(PALETTE)))
    views = sample_views(1, rng)
    picture = render(kind, color, views, size)[0].permute(1, 2, 0)
    path = write_png(folder / f"{index:06d}.png", picture)
    return {"file": path.name, **_labels(kind, color, views)}


def _labels(kind: str, color: str, views: Views) -> dict[str, Any]:
    azimuth, elevation = float(views.azimuth_deg[0]), float(views.elevation_deg[0])
    return {
        "caption": caption(kind, color, azimuth, elevation),
        "kind": kind,
        "color": color,
        "azimuth": round(azimuth, 4),
        "elevation": round(elevation, 4),
        "distance": round(float(views.distance[0]), 4),
        "fovy": views.fovy_deg,
    }

"""Toyworld as a folder of pictures: PNG files and one line of labels for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from maquette.data.toyworld.captions import caption
from maquette.data.toyworld.kinds import KINDS
from maquette.data.toyworld.palette import PALETTE
from maquette.data.toyworld.render import Views, render, sample_views
from maquette.io.images import write_png

LABELS = "captions.jsonl"


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

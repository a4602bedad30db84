"""Texture coordinates for a mesh that has none (xatlas)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xatlas

from maquette.core.errors import ConfigError, RunFailed
from maquette.ops.mesh import Mesh

DEFAULT_PADDING = 4
"""Texels between charts, unless the options say otherwise."""


def unwrap(
    mesh: Mesh,
    resolution: int = 1024,
    chart_options: Mapping[str, Any] | None = None,
    pack_options: Mapping[str, Any] | None = None,
) -> Mesh:
    """The same mesh with an atlas of charts that do not overlap; faces, vertices and their order stay.

    The time grows faster than the number of faces: of a simplified marching-cubes surface 10 000 faces take
    0.6 s on one core, 20 000 take 2.3 s, 59 000 take 20 s (`benchmarks/export.py --unwrap`).

    Args:
        mesh: without faces of zero area, or these get no place in the atlas.
        resolution: side of the texture that the atlas is meant for, texels.
        chart_options: fields of ``xatlas.ChartOptions``.
        pack_options: fields of ``xatlas.PackOptions``.

    Raises:
        ConfigError: an option that xatlas does not have.
        RunFailed: xatlas gave no usable atlas.
    """
    charts = _options(xatlas.ChartOptions(), {}, chart_options, "system.exporter.xatlas_chart_options")
    defaults = {"resolution": resolution, "padding": DEFAULT_PADDING, "bilinear": True}
    pack = _options(xatlas.PackOptions(), defaults, pack_options, "system.exporter.xatlas_pack_options")
    faces = mesh.faces.cpu().numpy()
    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices.detach().cpu().numpy().astype(np.float32), faces.astype(np.uint32))
    atlas.generate(charts, pack)
    vertex, uv_faces, uvs = atlas[0]
    if not np.array_equal(vertex[uv_faces], faces) or not np.isfinite(uvs).all():
        raise RunFailed(
            "The mesh could not be unwrapped.",
            [f"faces: {mesh.n_faces}, vertices: {mesh.n_vertices}"],
            hint="export with system.exporter.save_texture=false, or with fewer faces",
        )
    device = mesh.vertices.device
    return mesh.replace(
        uvs=torch.from_numpy(uvs.astype(np.float32)).to(device),
        uv_faces=torch.from_numpy(uv_faces.astype(np.int64)).to(device),
    )


def _options(target: Any, defaults: Mapping[str, Any], given: Mapping[str, Any] | None, key: str) -> Any:
    for name, value in {**defaults, **(given or {})}.items():
        known = [one for one in dir(target) if not one.startswith("_")]
        if name not in known:
            raise ConfigError(f"{key}.{name}", value, f"one of: {', '.join(known)}")
        try:
            setattr(target, name, value)
        except TypeError as err:
            raise ConfigError(f"{key}.{name}", value, f"a {type(getattr(target, name)).__name__}") from err
    return target

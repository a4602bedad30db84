"""The report that lies beside a mesh file."""

from __future__ import annotations

from pathlib import Path

from maquette.io.data import write_json
from maquette.ops.mesh import Mesh
from maquette.ops.mesh_health import mesh_report


def write_report(mesh: Mesh, path: str | Path) -> Path:
    """Write ``NAME.report.json`` beside the mesh file `path`: faces, pieces, closed, manifold, UV overlap ...

    Args:
        mesh: what was written to `path`, world frame.
        path: the mesh file; it need not exist.
    """
    path = Path(path)
    report = {"file": path.name, **mesh_report(mesh).as_dict()}
    return write_json(report_path(path), report)


def report_path(path: Path) -> Path:
    """Where the report of the mesh file `path` lies."""
    return path.with_name(f"{path.stem}.report.json")

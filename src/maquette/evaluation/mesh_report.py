"""Is this mesh healthy: the table of numbers by which finished assets are judged."""

from maquette.ops.mesh_health import MeshReport, mesh_report

__all__ = ["MeshReport", "mesh_report"]

"""Any file with something to look at: a mesh, points, or Gaussians."""

from __future__ import annotations

from pathlib import Path

from maquette.core.errors import UserError
from maquette.io.frames import UNITS, check_frame
from maquette.io.gltf import from_gltf_axes
from maquette.io.intact import check_exists
from maquette.io.mesh import read_mesh
from maquette.io.ply import ply_kind, read_points
from maquette.io.splats import read_splats
from maquette.ops.gaussians import Gaussians
from maquette.ops.mesh import Mesh
from maquette.ops.point_cloud import PointCloud

Asset = Mesh | PointCloud | Gaussians


def read_asset(path: str | Path, *, up: str | None = None, units: str | None = None) -> Asset:
    """What a file holds, in the world frame; of a PLY the header tells.

    Args:
        path: any format of `io.mesh.READ_SUFFIXES`.
        up: axis that points up in a file that does not say so; None: z.
        units: of a file that does not say so; None: metres.

    Raises:
        MissingFileError: there is no such file.
        UserError: it cannot be read, or is turned splats, which would have to turn their colours as well.
    """
    path = Path(path)
    check_exists(path)
    kind = ply_kind(path) if path.suffix.lower() == ".ply" else "mesh"
    if kind == "mesh":
        return read_mesh(path, up=up, units=units)
    check_frame(up or "z", units or "m")
    if kind == "points":
        return _turned(read_points(path), up == "y", UNITS[units or "m"])
    if up == "y" or units not in (None, "m"):
        raise UserError(f"Splats are read as they are, z up and in metres: {path}")
    return read_splats(path)


def _turned(cloud: PointCloud, y_up: bool, scale: float) -> PointCloud:
    if not y_up:
        return cloud if scale == 1.0 else cloud.replace(points=cloud.points * scale)
    normals = None if cloud.normals is None else from_gltf_axes(cloud.normals)
    return cloud.replace(points=from_gltf_axes(cloud.points) * scale, normals=normals)

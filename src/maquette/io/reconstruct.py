"""A surface through points: open3d does the work, an extra that needs no display."""

from __future__ import annotations

import ctypes
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from maquette.core.errors import ConfigError, MissingBackendError, RunFailed, UserError
from maquette.core.optional import require
from maquette.io.repair import repaired
from maquette.ops.mesh import (
    Mesh,
    merge_vertices,
    remove_small_components,
    volume,
)
from maquette.ops.point_cloud import PointCloud

METHODS = ("poisson", "ball-pivoting")
SYSTEM_LIBRARIES = {
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libX11.so.6": "libx11-6",
    "libudev.so.1": "libudev1",
    "libidn2.so.0": "libidn2-0",
}
"""What open3d is linked with and does not bring along, and the packages of Debian and Ubuntu that have it."""

FEWEST = 20
"""Points below which no surface is looked for."""
NEIGHBOURS = 24
"""Points around a point that tell its normal."""
CRUMBS = 0.01
"""Pieces with less than this share of the largest one's area are left out."""
DEEPEST = 12


def surface_of_points(cloud: PointCloud, method: str = "poisson", depth: int = 7) -> Mesh:
    """A mesh of scattered points, with their colours at its vertices where they have any.

    Args:
        cloud: points on the surface of something, world frame. Without normals they are estimated from
            neighbours and made to agree; outward is where most of the surface's volume says so.
        method: "poisson" (Kazhdan and Hoppe 2013, screened Poisson: smooth and closed, also over gaps), or
            "ball-pivoting" (Bernardini et al. 1999: through the points themselves, holes stay).
        depth: of the octree of "poisson": 2^depth cells along the longest side.

    Raises:
        MissingBackendError: open3d is not installed.
        UserError: open3d lacks a system library, or there are too few points, or all are at one place.
        ConfigError: another method or depth.
        RunFailed: no surface was found.
    """
    if method not in METHODS:
        raise ConfigError("method", method, f"one of: {', '.join(METHODS)}")
    if not 3 <= depth <= DEEPEST:
        raise ConfigError("depth", depth, f"an integer from 3 to {DEEPEST}")
    _check(cloud)
    library = open3d()
    points = _with_normals(library, cloud)
    try:
        found = _poisson(library, points, depth) if method == "poisson" else _pivoted(library, points)
    except RuntimeError as err:  # what open3d calls everything
        reason = str(err).strip().splitlines()[0]
        raise RunFailed(f"No surface was found through {cloud.n_points} points.", [reason[:300]]) from err
    mesh = _cleaned(found, method, colored=cloud.colors is not None)
    if mesh.n_faces == 0:
        raise RunFailed(f"No surface was found through {cloud.n_points} points.", hint="try the other method")
    return mesh


def open3d() -> Any:
    """The library, imported now.

    Raises:
        MissingBackendError: it is not installed.
        UserError: it is, and a library of the system is missing.
    """
    try:
        library = require("open3d", "points")
    except MissingBackendError as err:
        if find_spec("open3d") is None:
            raise
        packages = " ".join(missing_libraries().values())
        raise UserError(
            "open3d is installed, but something of the system that it needs is not.",
            [str(err.__cause__).splitlines()[0]],
            hint=f"on Debian and Ubuntu: apt-get install {packages}" if packages else None,
        ) from err
    library.utility.set_verbosity_level(library.utility.VerbosityLevel.Error)
    return library


def missing_libraries() -> dict[str, str]:
    """Those of `SYSTEM_LIBRARIES` that cannot be loaded here, with their packages; none outside of Linux."""
    missing = {}
    for name, package in SYSTEM_LIBRARIES.items() if sys.platform == "linux" else ():
        try:
            ctypes.CDLL(name)
        except OSError:
            missing[name] = package
    return missing


def _check(cloud: PointCloud) -> None:
    if cloud.n_points < FEWEST:
        raise UserError(f"{cloud.n_points} points are too few for a surface; {FEWEST} are the least.")
    if not bool(torch.isfinite(cloud.points).all()):
        raise UserError("Some points are not finite.")
    size = cloud.points.amax(dim=0) - cloud.points.amin(dim=0)
    if not int((size > 0).sum()) >= 2:
        raise UserError("All points lie at one place or on one line: there is no surface through them.")


def _with_normals(library: Any, cloud: PointCloud) -> Any:
    points = library.geometry.PointCloud()
    points.points = library.utility.Vector3dVector(cloud.points.double().cpu().numpy())
    if cloud.colors is not None:
        points.colors = library.utility.Vector3dVector(cloud.colors.double().cpu().numpy())
    if cloud.normals is not None:
        points.normals = library.utility.Vector3dVector(cloud.normals.double().cpu().numpy())
        return points
    around = min(NEIGHBOURS, cloud.n_points - 1)
    points.estimate_normals(library.geometry.KDTreeSearchParamKNN(around))
    try:
        points.orient_normals_consistent_tangent_plane(min(15, around))
    except RuntimeError as err:
        raise UserError(
            "The normals of the points could not be made to agree.",
            ["the points may lie in one plane, or mostly at the same places"],
            hint="give the cloud normals (nx, ny, nz)",
        ) from err
    return points


def _poisson(library: Any, points: Any, depth: int) -> Any:
    surface = library.geometry.TriangleMesh.create_from_point_cloud_poisson
    return surface(points, depth=depth, n_threads=1)[0]


def _pivoted(library: Any, points: Any) -> Any:
    spacing = float(np.mean(points.compute_nearest_neighbor_distance()))
    radii = library.utility.DoubleVector([factor * spacing for factor in (1.0, 1.5, 2.5, 4.0)])
    return library.geometry.TriangleMesh.create_from_point_cloud_ball_pivoting(points, radii)


def _cleaned(found: Any, method: str, colored: bool) -> Mesh:
    faces = torch.from_numpy(np.asarray(found.triangles).astype(np.int64))
    vertices = torch.from_numpy(np.asarray(found.vertices).astype(np.float32))
    colors = torch.from_numpy(np.asarray(found.vertex_colors).astype(np.float32))
    painted = colored and len(colors) == len(vertices)
    mesh = Mesh(vertices, faces.reshape(-1, 3), vertex_colors=colors.clamp(0, 1) if painted else None)
    mesh = merge_vertices(mesh)
    if mesh.n_faces and method == "poisson":
        mesh = repaired(remove_small_components(mesh, CRUMBS))[0]
    outward = mesh.n_faces == 0 or float(volume(mesh)) >= 0
    return mesh if outward else mesh.replace(faces=mesh.faces.flip(1))

"""Coloured solids that toys are put together from; world is z-up, lengths in world units."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import ArrayLike
from trimesh.transformations import rotation_matrix

from maquette.data.toyworld.palette import RGB

Point = tuple[float, float, float]
ORIGIN: Point = (0.0, 0.0, 0.0)
AXES: dict[str, Point] = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}


@dataclass(frozen=True)
class Part:
    """One solid of a toy; ``color`` None means the colour of the caption."""

    mesh: trimesh.Trimesh
    color: RGB | None


def place(mesh: trimesh.Trimesh, at: Point, axis: str, turn_deg: float, color: RGB | None) -> Part:
    """Turn ``mesh`` about a world axis, then move its origin to ``at``."""
    if turn_deg:
        mesh.apply_transform(rotation_matrix(math.radians(turn_deg), AXES[axis]))
    mesh.apply_translation(at)
    return Part(mesh, color)


def ball(radius: float, at: Point, color: RGB | None = None, stretch: Point = (1.0, 1.0, 1.0)) -> Part:
    """Sphere, or an ellipsoid with half axes ``radius * stretch``."""
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    mesh.apply_scale(stretch)
    return place(mesh, at, "z", 0.0, color)


def dome(radius: float, at: Point, color: RGB | None = None, height: float = 1.0) -> Part:
    """Upper half of a sphere, flattened or raised by ``height``, closed below."""
    points = trimesh.creation.icosphere(subdivisions=3, radius=radius).vertices
    return hull(points[points[:, 2] > -1e-6] * (1.0, 1.0, height), color, at)


def block(size: Point, at: Point, color: RGB | None = None, axis: str = "z", turn_deg: float = 0.0) -> Part:
    """Box with full edge lengths ``size`` centred at ``at``."""
    return place(trimesh.creation.box(size), at, axis, turn_deg, color)


def tube(
    radius: float,
    height: float,
    at: Point,
    color: RGB | None = None,
    axis: str = "z",
    turn_deg: float = 0.0,
) -> Part:
    """Closed cylinder along z, centred at ``at``."""
    return place(trimesh.creation.cylinder(radius, height, sections=32), at, axis, turn_deg, color)


def spike(
    radius: float,
    height: float,
    at: Point,
    color: RGB | None = None,
    axis: str = "z",
    turn_deg: float = 0.0,
) -> Part:
    """Cone whose base centre is ``at`` and whose tip points along +z before turning."""
    return place(trimesh.creation.cone(radius, height, sections=32), at, axis, turn_deg, color)


def funnel(bottom: float, top: float, height: float, at: Point, color: RGB | None = None) -> Part:
    """Closed frustum along z centred at ``at`` with two radii."""
    angle = np.linspace(0.0, 2.0 * math.pi, 32, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], -1)
    lift = np.array([0.0, 0.0, height / 2])
    return hull(np.concatenate([bottom * circle - lift, top * circle + lift]), color, at)


def pipe(inner: float, outer: float, height: float, at: Point, color: RGB | None = None) -> Part:
    """Hollow cylinder along z, open at both ends."""
    return place(trimesh.creation.annulus(inner, outer, height, sections=32), at, "z", 0.0, color)


def ring(
    radius: float,
    thickness: float,
    at: Point,
    color: RGB | None = None,
    axis: str = "z",
    turn_deg: float = 0.0,
) -> Part:
    """Torus around z: ``radius`` to the centre line, ``thickness`` is the radius of the tube."""
    mesh = trimesh.creation.torus(radius, thickness, major_sections=32, minor_sections=12)
    return place(mesh, at, axis, turn_deg, color)


def hull(points: ArrayLike, color: RGB | None = None, at: Point = ORIGIN) -> Part:
    """Convex hull of ``points`` (N, 3): wedges, wings, keels."""
    mesh = trimesh.Trimesh(np.asarray(points, dtype=float), process=False).convex_hull
    return place(mesh, at, "z", 0.0, color)

"""Fewer faces, smoother faces: what trimesh and fast-simplification do well, for our dataclass."""

from __future__ import annotations

import numpy as np
import torch
from trimesh.smoothing import filter_taubin

from maquette.io.mesh import mesh_to_trimesh
from maquette.ops.mesh import Mesh


def decimate(mesh: Mesh, n_faces: int) -> Mesh:
    """At most about `n_faces` faces by quadric edge collapse (Garland and Heckbert 1997).

    Colours and texture coordinates do not survive; a mesh that is small enough comes back as it is.
    """
    if mesh.n_faces <= n_faces:
        return mesh
    simple = mesh_to_trimesh(_bare(mesh)).simplify_quadric_decimation(face_count=n_faces)
    vertices = torch.from_numpy(np.array(simple.vertices, dtype=np.float32))
    faces = torch.from_numpy(np.array(simple.faces, dtype=np.int64))
    return Mesh(vertices, faces, extras=mesh.extras).to(mesh.vertices.device)


def smooth(mesh: Mesh, iterations: int) -> Mesh:
    """Vertices moved to remove small bumps without shrinking the whole (Taubin 1995), in pairs of passes."""
    if iterations <= 0:
        return mesh
    bare = mesh_to_trimesh(_bare(mesh))
    filter_taubin(bare, lamb=0.5, nu=0.53, iterations=2 * ((iterations + 1) // 2))
    vertices = torch.from_numpy(np.array(bare.vertices, dtype=np.float32))
    return mesh.replace(vertices=vertices.to(mesh.vertices.device))


def _bare(mesh: Mesh) -> Mesh:
    return Mesh(mesh.vertices, mesh.faces)

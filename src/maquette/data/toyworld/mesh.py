"""A toy as one triangle soup: vertices, faces and a colour for each face."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from maquette.data.toyworld.captions import name
from maquette.data.toyworld.held_out import HELD_OUT
from maquette.data.toyworld.kinds import KINDS
from maquette.data.toyworld.palette import PALETTE
from maquette.ops.mesh import Mesh

RADIUS = 0.9
"""No toy reaches further from the origin."""


@dataclass(frozen=True)
class ToyMesh:
    """Geometry shared by all colours of one kind (world frame, z-up, front +x)."""

    vertices: NDArray[np.float32]
    """(V, 3)."""
    faces: NDArray[np.int32]
    """(F, 3)."""
    accents: NDArray[np.float32]
    """(F, 3) fixed colours; rows of captioned faces hold NaN."""

    def face_colors(self, color: str) -> NDArray[np.float32]:
        """(F, 3) colours in [0, 1] with the captioned colour filled in."""
        return np.where(np.isnan(self.accents), np.float32(PALETTE[color]), self.accents)


@functools.cache
def toy_mesh(kind: str) -> ToyMesh:
    """Mesh of a kind, or of one that is held out; made once."""
    parts = {**KINDS, **HELD_OUT}[kind]()
    offsets = np.cumsum([0] + [len(part.mesh.vertices) for part in parts])
    faces = [part.mesh.faces + offset for part, offset in zip(parts, offsets, strict=False)]
    accents = [
        np.tile((np.nan,) * 3 if part.color is None else part.color, (len(part.mesh.faces), 1))
        for part in parts
    ]
    vertices = np.concatenate([part.mesh.vertices for part in parts])
    vertices *= min(1.0, RADIUS / np.linalg.norm(vertices, axis=-1).max())
    return ToyMesh(
        vertices=vertices.astype(np.float32),
        faces=np.concatenate(faces).astype(np.int32),
        accents=np.concatenate(accents).astype(np.float32),
    )


def colored_toy(kind: str, color: str) -> Mesh:
    """The toy as a mesh of single-coloured triangles, for files and for viewers."""
    toy = toy_mesh(kind)
    corners = toy.vertices[toy.faces].reshape(-1, 3)
    return Mesh(
        vertices=torch.from_numpy(corners),
        faces=torch.arange(len(corners)).view(-1, 3),
        vertex_colors=torch.from_numpy(toy.face_colors(color).repeat(3, axis=0)),
        extras={"name": name(kind, color)},
    )

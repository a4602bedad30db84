"""Is this mesh healthy: one table of numbers that say what a game engine or a slicer would complain about."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from maquette.io.mesh import is_watertight
from maquette.ops.mesh import (
    Mesh,
    bounding_box,
    component_labels,
    edges,
    face_areas,
    volume,
    weld,
)


@dataclass(frozen=True, kw_only=True)
class MeshReport:
    """The health of one mesh. Vertices at the same position count as one."""

    vertices: int
    """Vertices that faces use."""
    faces: int
    components: int
    """Connected pieces."""
    closed: bool
    """Every edge has exactly two faces, which agree on which side is out."""
    manifold: bool
    """No edge has more than two faces."""
    boundary_edges: int
    """Edges with one face: the rims of holes."""
    degenerate_faces: int
    """Faces that name a vertex twice or have no area."""
    area: float
    """World units squared."""
    volume: float
    """World units cubed; negative where a closed surface is inside out."""
    bounding_box: tuple[tuple[float, ...], tuple[float, ...]]
    """Lower and upper corner, world frame."""
    has_texture: bool
    """Whether a texture and coordinates for it are there."""

    @property
    def healthy(self) -> bool:
        """A closed manifold in one piece, right side out, without degenerate faces."""
        sound = self.closed and self.manifold and self.degenerate_faces == 0
        return sound and self.components == 1 and self.volume > 0

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for a JSON file or a table."""
        return asdict(self) | {"healthy": self.healthy}


def mesh_report(mesh: Mesh) -> MeshReport:
    """Measure a mesh in the world frame."""
    surface = weld(Mesh(mesh.vertices, mesh.faces))
    counts = edges(surface)[1]
    a, b, c = surface.faces.unbind(dim=1)
    areas = face_areas(surface)
    degenerate = (a == b) | (b == c) | (c == a) | (areas <= 0)
    low, high = bounding_box(surface).tolist()
    return MeshReport(
        vertices=surface.n_vertices,
        faces=surface.n_faces,
        components=component_labels(surface)[1],
        closed=surface.n_faces > 0 and is_watertight(surface),
        manifold=bool((counts <= 2).all()),
        boundary_edges=int((counts == 1).sum()),
        degenerate_faces=int(degenerate.sum()),
        area=float(areas.sum()),
        volume=float(volume(surface)),
        bounding_box=(tuple(low), tuple(high)),
        has_texture=mesh.has_uvs and "base_color" in mesh.texture,
    )

"""First hit of rays with a triangle mesh, by a bounding volume hierarchy (Warp, CPU and GPU)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from maquette.kernels.launch import MODULE_OPTIONS, array, launch_rows, start

wp.set_module_options(MODULE_OPTIONS)

FAR = 1.0e6


@dataclass(frozen=True)
class RayHits:
    """What N rays met; rows of rays that missed hold zeros, ``face`` -1 and ``t`` infinity."""

    t: Float[Tensor, " N"]
    """Distance from the origin in lengths of the ray's direction."""
    face: Int[Tensor, " N"]
    """Index of the face, -1 where nothing was hit."""
    barycentric: Float[Tensor, "N 2"]
    """Weights of the face's first and second corner; the third has one minus both."""
    normal: Float[Tensor, "N 3"]
    """Unit normal of the face, turned towards the origin of the ray."""

    @property
    def mask(self) -> Tensor:
        """Boolean (N,): the ray hit something."""
        return self.face >= 0

    def interpolate(self, corners: Float[Tensor, "V C"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "N C"]:
        """Values given at corners, linearly over each face; zero where nothing was hit."""
        index = faces.long()[self.face.clamp_min(0).long()]
        u, v = self.barycentric.unbind(-1)
        weights = torch.stack([u, v, 1.0 - u - v], -1) * self.mask[:, None]
        return (corners[index] * weights[..., None]).sum(1)


@wp.kernel
def _first_hits(
    first: wp.int32,
    mesh: wp.uint64,
    origins: wp.array[wp.vec3],
    directions: wp.array[wp.vec3],
    limit: wp.float32,
    out_t: wp.array[wp.float32],
    out_face: wp.array[wp.int32],
    out_bary: wp.array[wp.vec2],
    out_normal: wp.array[wp.vec3],
) -> None:
    i = first + wp.tid()
    direction = directions[i]
    query = wp.mesh_query_ray(mesh, origins[i], direction, limit)
    if query.result:
        normal = wp.normalize(query.normal)
        if wp.dot(normal, direction) > 0.0:
            normal = -normal
        out_t[i] = query.t
        out_face[i] = query.face
        out_bary[i] = wp.vec2(query.u, query.v)
        out_normal[i] = normal


class RayMesh:
    """A triangle mesh that answers rays.

    Args:
        vertices: (V, 3) float32.
        faces: (F, 3) indices into ``vertices``, on the same device.
    """

    def __init__(self, vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> None:
        start()
        self._points = vertices.detach().float().contiguous()
        self._indices = faces.detach().int().contiguous().view(-1)
        self._mesh = wp.Mesh(
            points=wp.from_torch(self._points, dtype=wp.vec3), indices=wp.from_torch(self._indices)
        )

    def cast(self, rays_o: Float[Tensor, "N 3"], rays_d: Float[Tensor, "N 3"]) -> RayHits:
        """First hit of every ray; both sides of a face count. Nothing is differentiated."""
        origins = rays_o.detach().float().contiguous()
        directions = rays_d.detach().float().contiguous()
        n, device = len(origins), origins.device
        hits = RayHits(
            t=torch.full((n,), torch.inf, device=device),
            face=torch.full((n,), -1, dtype=torch.int32, device=device),
            barycentric=torch.zeros(n, 2, device=device),
            normal=torch.zeros(n, 3, device=device),
        )
        args = [
            self._mesh.id,
            array(origins, wp.vec3),
            array(directions, wp.vec3),
            FAR,
            array(hits.t),
            array(hits.face),
            array(hits.barycentric, wp.vec2),
            array(hits.normal, wp.vec3),
        ]
        launch_rows(_first_hits, n, args, device, smallest=4096)
        return hits
